"""What comes in: models, data sets, the recipe."""
