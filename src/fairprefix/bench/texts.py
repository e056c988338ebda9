"""Text for the parts of prompts: invented words, or cut from files that are given."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from fairprefix.sim.textfile import read_text
from fairprefix.workload import Part, WorkloadError

QUESTIONS, DOCUMENTS = "gsm8k*.jsonl*", "loogle*.jsonl*"
_SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ra", "se", "ti", "vu", "wa", "xe", "zo")


class Texts(Protocol):
    """Gives parts their text: the same part, the same text."""

    def of(self, part: Part, characters: int) -> str:
        """Return about so many characters."""
        ...


class Invented:
    """Words that nobody has written: a function of the part's number alone."""

    def of(self, part: Part, characters: int) -> str:
        """Return exactly so many characters."""
        draws = random.Random(part.id)  # noqa: S311  # words, not secrets
        words: list[str] = [f"{part.kind} {part.id}:"]
        length = len(words[0])
        while length < characters:
            word = "".join(draws.choice(_SYLLABLES) for _ in range(draws.randint(1, 3)))
            words.append(word)
            length += len(word) + 1
        return " ".join(words)[:characters]


class FromFiles:
    """Questions of GSM8K and documents of LooGLE, as far as a folder has them; anything else is invented.

    Lengths are the workload's: a text is cut, or continued with the next one of its file.

    Args:
        folder: with gsm8k*.jsonl and loogle*.jsonl (or .gz): one JSON object a line, the text under `question`
            or `input`.

    Raises:
        WorkloadError: there is neither, or a line cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        questions = _read(folder, QUESTIONS, "question")
        documents = _read(folder, DOCUMENTS, "input")
        if not questions and not documents:
            raise WorkloadError(f"{folder}: expected {QUESTIONS} or {DOCUMENTS}, found neither")
        self._by_kind = {
            "question": questions,
            "message": questions,
            "document": documents,
            "article": documents,
        }
        self._invented = Invented()

    def of(self, part: Part, characters: int) -> str:
        """Return exactly so many characters."""
        texts = self._by_kind.get(part.kind)
        if not texts:
            return self._invented.of(part, characters)
        pieces: list[str] = []
        length, place = 0, part.id
        while length < characters:
            piece = texts[place % len(texts)]
            pieces.append(piece)
            length += len(piece) + 1
            place += 1
        return "\n".join(pieces)[:characters]


def _read(folder: Path, pattern: str, name: str) -> Sequence[str]:
    found = []
    for path in sorted(folder.glob(pattern)):
        for line, text in enumerate(read_text(path, WorkloadError).splitlines(), 1):
            found.append(_text(text, name, f"{path}:{line}"))
    return found


def _text(line: str, name: str, where: str) -> str:
    try:
        fields: Any = json.loads(line)
    except json.JSONDecodeError as problem:
        raise WorkloadError(f"{where}: is not valid JSON: {problem.msg}") from problem
    value = fields.get(name) if isinstance(fields, dict) else None
    if not isinstance(value, str) or not value:
        raise WorkloadError(f"{where}: {name} = {value!r} is not valid: expected a text")
    return value
