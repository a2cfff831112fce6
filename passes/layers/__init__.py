"""What linear layers compute, and how it is fitted: shared by the passes that change them."""
