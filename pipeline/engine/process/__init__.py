"""An engine in a process of its own, which can be ended without ending the run."""
