"""What a model is: graph, files, printer, verifier, rewriting, analyses, execution."""
