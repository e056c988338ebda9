"""A virtual-time engine, step-time models and traces: the policies at work without a GPU."""
