"""Adapters: policies of this package inside engines of others. Each one translates events, and nothing else."""
