"""The gateway: a fair queue, and a router, in front of any OpenAI-compatible workers."""
