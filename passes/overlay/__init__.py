"""The steps of ``overlay``: the stage, its bands, the first convolution anew, and what stands behind it."""
