"""A base model on this machine, on transformers: the two verbs over batches that share prefixes."""
