"""Prompt templates, few-shot examples and controls, found by name and rendered strictly."""
