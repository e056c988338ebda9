"""Adapters to serving engines: each translates events, and nothing else."""
