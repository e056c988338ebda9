"""What the three clients ask: two of them about a long document each, one chats with an assistant.

`flood` asks everything at once about one document; `notes` asks less about another one; `chat` asks short things,
one after the other. Each of them begins every prompt alike, and the memory has room for one document, and not for
two: whoever alternates between clients at every turn computes the documents over and over again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from attrs import frozen

from fairprefix.gpu_ref_engine.sampling import SamplingParams
from fairprefix.gpu_ref_engine.tokenizer import Tokenizer

ANSWER_TOKENS = 24
NS_PER_S = 1_000_000_000


@frozen
class Asker:
    """A client and its habits."""

    client: str
    text: str
    """Name of the text that every prompt of it begins with."""
    questions: int
    """How many it asks, at full size."""
    first_s: float
    every_s: float
    """Time between two of its questions."""


ASKERS = (
    Asker("flood", "ferry", 60, 0.0, 0.0),
    Asker("chat", "kitchen", 24, 0.3, 0.1),
    Asker("notes", "observatory", 24, 0.5, 0.0),
)
SMALLEST = 0.4
"""Share of the questions below which a run shows nothing."""


@frozen(eq=False, kw_only=True)
class Question:
    """One request of the demonstration."""

    id: str
    client: str
    due_ns: int
    """When it is asked, since the beginning."""
    question: str
    prompt: Sequence[int]
    params: SamplingParams


@cache
def _text(name: str) -> str:
    return files("fairprefix.demo").joinpath("data").joinpath(name).read_text(encoding="utf-8")


def questions(tokenizer: Tokenizer, share: float) -> list[Question]:
    """Return what is asked, in order of time.

    Args:
        tokenizer: the model's.
        share: of the questions at full size, at most 1; `SMALLEST` at least are asked.
    """
    asked = json.loads(_text("questions.json"))
    found: list[Question] = []
    for asker in ASKERS:
        count = round(asker.questions * max(share, SMALLEST))
        for number in range(count):
            question = asked[asker.text][number % len(asked[asker.text])]
            messages = [
                {"role": "system", "content": _text(f"{asker.text}.txt").strip()},
                {"role": "user", "content": question},
            ]
            found.append(
                Question(
                    id=f"{asker.client}-{number}",
                    client=asker.client,
                    due_ns=round((asker.first_s + number * asker.every_s) * NS_PER_S),
                    question=question,
                    prompt=tokenizer.chat(messages),
                    params=SamplingParams(max_tokens=ANSWER_TOKENS, temperature=0),
                )
            )
    return sorted(found, key=lambda one: one.due_ns)


def kv_tokens(asked: Sequence[Question], page_size: int) -> int:
    """Return a size of memory that holds the longest prompt and half of another one like it."""
    longest = max(len(one.prompt) for one in asked) + ANSWER_TOKENS
    return -(-int(longest * 1.55) // page_size) * page_size
