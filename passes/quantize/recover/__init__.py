"""Weights and biases chosen so that the quantized network computes what the float network does."""
