"""Computes: pure functions and engines, with no money, no graph, no reviewer and no printing."""
