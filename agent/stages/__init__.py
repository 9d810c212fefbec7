"""Stages: what each node of the graph does, one file a node."""
