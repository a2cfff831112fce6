"""What passes are fitted to, what they choose by, and what is reported: three sets of samples that do not meet."""
