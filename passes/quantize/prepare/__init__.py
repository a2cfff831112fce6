"""What is rewritten in the float network before it is quantized."""
