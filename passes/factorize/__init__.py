"""The parts of ``factorize``: layers, decompositions, chains, and which ranks spend a budget best."""
