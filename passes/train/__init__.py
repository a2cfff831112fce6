"""Training of what other passes left: the passes, their options, and the engine, which alone imports torch."""
