"""Text that streams out, and stop strings in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairprefix.gpu_ref_engine.stop import StopWatch
from fairprefix.gpu_ref_engine.tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer(300)


def stream(text: str, stops: tuple[str, ...]) -> tuple[list[str], StopWatch]:
    """Return what comes out, byte by byte and at the end."""
    watch = StopWatch(TOKENIZER.detokenizer(), stops)
    pieces = [watch.add((byte,)) for byte in text.encode()]
    return [*pieces, watch.flush()], watch


@given(
    text=st.text("abc\u20ac", max_size=30),
    stops=st.lists(st.text("abc\u20ac", min_size=1, max_size=4), max_size=3),
)
def test_what_comes_out_is_the_text_up_to_the_first_stop_string(text: str, stops: list[str]) -> None:
    """Token by token, the text comes out as a whole, or up to where its first stop string is complete."""
    pieces, watch = stream(text, tuple(stops))
    ends = [end for end in range(1, len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    if not ends:
        assert "".join(pieces) == text
        assert not watch.stopped
        return
    seen = text[: ends[0]]
    assert "".join(pieces) == seen[: min(place for place in (seen.find(stop) for stop in stops) if place >= 0)]
    assert watch.stopped


@given(text=st.text("ab", max_size=30), stop=st.text("ab", min_size=2, max_size=4))
def test_no_more_is_held_back_than_may_become_a_stop_string(text: str, stop: str) -> None:
    """At any moment all is visible but the longest end that the stop string begins with."""
    watch = StopWatch(TOKENIZER.detokenizer(), (stop,))
    shown = ""
    for place, char in enumerate(text, 1):
        shown += watch.add((ord(char),))
        if watch.stopped:
            return
        hidden = text[:place][len(shown) :]
        assert stop.startswith(hidden)
        assert len(hidden) < len(stop)


def test_nothing_comes_after_a_stop_string() -> None:
    """Whatever is added later stays invisible."""
    pieces, watch = stream("one.two", (".",))
    assert "".join(pieces) == "one"
    assert watch.add((ord("x"),)) == ""
