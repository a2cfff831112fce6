"""Which values each activation takes, and which of them its integers stand for."""
