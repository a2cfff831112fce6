"""onnxruntime on a CPU."""
