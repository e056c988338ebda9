"""What rank routing hooks in SGLang is there, and its requests can name their rank."""

from __future__ import annotations

from fairprefix.adapters.sglang.ranks import TARGETS, check_rank_field
from fairprefix.adapters.sglang.support import check_targets


def test_sglang_has_what_is_hooked_for_ranks() -> None:
    """Neither check ends the process."""
    check_targets(TARGETS)
    check_rank_field()
