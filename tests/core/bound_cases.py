"""Engines and costs for claims about bounds: those of the examples, and any small ones."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.core.bounds import Engine
from fairprefix.core.cost import CostWeights

UNIT_COST = CostWeights(extend=1, output=1)
COST = CostWeights(extend=1, output=2)


def engine(
    reservation: str = "full",
    *,
    memory: int = 400,
    running: int = 64,
    prompt: int = 100,
    output: int = 400,
    resume: str = "gated",
) -> Engine:
    """Return an engine with the figures of the examples."""
    return Engine(
        reservation=reservation,
        kv_tokens=memory,
        max_running=running,
        longest_input=prompt,
        longest_output=output,
        resume=resume,
    )


TINY = engine("none", memory=10, running=5, prompt=1, output=4)

ENGINES = st.builds(
    engine,
    st.sampled_from(["full", "none"]),
    memory=st.integers(2, 60),
    running=st.integers(1, 12),
    prompt=st.integers(1, 40),
    output=st.integers(1, 70),
    resume=st.sampled_from(["gated", "held"]),
)
COSTS = st.builds(CostWeights, extend=st.integers(0, 4), output=st.integers(1, 4))
