"""Verify: a run is done again from its journal, in memory, and compared with what is stored."""
