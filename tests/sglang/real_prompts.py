"""Random prompts in the tiny model's vocabulary."""

from __future__ import annotations

import random

from tests.sglang.tiny import VOCABULARY

_SPECIAL = 4


def prompt(seed: int, length: int) -> list[int]:
    """Return random token ids, none of them special."""
    rng = random.Random(seed)
    return [rng.randrange(_SPECIAL, VOCABULARY) for _ in range(length)]
