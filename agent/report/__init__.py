"""Reports that people read: pure functions from a run's records to Markdown and pictures."""
