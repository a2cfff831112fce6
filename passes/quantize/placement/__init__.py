"""Which nodes run in integers, and which tensors they round."""
