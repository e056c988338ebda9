"""Scheduling for LLM serving that is fair between clients and keeps the prefix cache hot."""
