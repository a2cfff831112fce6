"""edgec: a compiler that makes trained neural networks fit small devices."""
