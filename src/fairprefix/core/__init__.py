"""The policy core: pure, deterministic, integer arithmetic, attrs alone.

Nothing in here reads a clock, does I/O, draws random numbers, logs, or imports anything of ours from
outside this package. A host (engine, adapter, gateway, simulator) feeds events in and carries decisions out.
"""
