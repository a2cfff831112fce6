"""The parts of ``prune``: what a channel is worth, which channels go, and how they are cut out."""
