"""Shared by the tests of the engine."""
