"""What the page on one's own engine shows is what its code prints."""

from __future__ import annotations

import pytest

from tests.docs.pages import code_of, executed, text_of

PAGE = "integrate/your-own-engine.md"


def test_the_page_shows_what_its_code_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """The toy engine runs, first unfair and then fair; the contract checker finds what was left out."""
    page = executed(PAGE)
    shown = " ".join(text_of(PAGE).split())
    for line in capsys.readouterr().out.splitlines():
        assert " ".join(line.split()) in shown
    assert page["fair"][0] * 3 < page["fcfs"][0]
    assert page["fair"][1] > 2 * page["fcfs"][1]


def test_the_toy_engine_is_short() -> None:
    """Sixty lines or so: no more than can be read at a glance."""
    engine = code_of(PAGE)[0]
    assert sum(bool(line.strip()) for line in engine.splitlines()) <= 65
