"""Attention over paged keys and values: one contract, a backend per file, and the choice between them."""

BACKENDS = ("auto", "flashinfer", "triton", "sdpa")
