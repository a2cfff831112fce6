"""The parts of ``compress``: what the tries are fitted to and judged by, one try, and the search."""
