"""The sources of the bundle's run.py: Python 3.6, the standard library only."""
