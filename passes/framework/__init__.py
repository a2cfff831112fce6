"""What every pass stands on: its base class, what it may ask for, and the pipeline that holds it to its promise."""
