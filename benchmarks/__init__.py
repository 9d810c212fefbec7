"""Comparisons with peers: each is one command, and prints ratios from one run."""
