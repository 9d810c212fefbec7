"""A base model behind a completions server, spoken to over HTTP."""
