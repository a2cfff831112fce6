"""A graph as a torch module that can be trained, and its weights back into the graph."""
