"""The in-process engine against its peers: same model, prompts, sampling and stop strings."""
