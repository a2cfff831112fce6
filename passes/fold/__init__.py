"""The rewrites of ``fold``: each file holds the rules of one kind."""
