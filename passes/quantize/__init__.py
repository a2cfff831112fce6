"""The parts of ``quantize``: calibration, placement, scales and quantized weights."""
