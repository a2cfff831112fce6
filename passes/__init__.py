"""What changes a model: the pass protocol, the pipeline, one file per pass."""
