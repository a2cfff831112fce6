"""TensorRT on Jetson boards: bundles that are built, checked and timed on the board."""
