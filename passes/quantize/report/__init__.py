"""What quantization cost, layer by layer."""
