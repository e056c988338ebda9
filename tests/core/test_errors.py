"""What messages suggest."""

from __future__ import annotations

import pytest

from fairprefix.core.errors import nearest


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("dlmp", ["fcfs", "lpm", "dlpm"], " (did you mean 'dlpm'?)"),
        ("abcd", ["abxy"], " (did you mean 'abxy'?)"),
        ("abcd", ["axyz"], ""),
        ("anything", [], ""),
    ],
)
def test_a_name_is_suggested_when_half_of_it_fits(name: str, known: list[str], hint: str) -> None:
    """The closest known name is suggested, down to half of the letters in common; below that none is."""
    assert nearest(name, known) == hint
