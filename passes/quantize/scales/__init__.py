"""From ranges to scales and zero-points, under what a target prescribes."""
