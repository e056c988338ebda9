"""The reference engine: a real model under the policies of the core, on a CPU or on one GPU."""
