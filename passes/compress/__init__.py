"""The parts of ``compress``: one try, and the search."""
