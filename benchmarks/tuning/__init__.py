"""Tuners compared: from bad settings to certified ones, through the program's own loop."""
