"""Decides, spends, asks and records: the only package that knows of money, people or LangGraph."""
