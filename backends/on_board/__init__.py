"""Programs that lie in a board's folder and run there: Python 3.6, numpy and a runtime are all that they need."""
