"""What changes a model: the pass protocol, the pipeline, one file per pass, a folder for the parts of a large one."""
