"""The kinds of programs that the DLPM paper's evaluation is made of (arXiv 2501.14312, Tables 2 and 3).

Averages are the paper's. What it does not say is said here:

* A tree of height 4 with b branches has b + b^2 + b^3 + b^4 calls: 30 for b = 2, 340 for b = 4, as Table 3 counts
  them. Its root is the question, which is no call; a thought's prompt is the question and all thoughts above it.
* A judge asks about each dimension of an article by itself, and merges the answers with one more call.
* Where the average output equals a round limit (256), every answer has that length.
* Between levels stands an instruction of `INSTRUCTION_TOKENS`.
* Where a program forks from text that nobody has computed yet, it first sends that text and asks for one token, as
  SGLang's front end commits a prefix before it forks: else all branches would compute it side by side.
"""

from __future__ import annotations

from attrs import frozen

from fairprefix.core.request import Client
from fairprefix.workload.draws import NS_PER_S, Maker
from fairprefix.workload.program import Call, Part, Program

DOCUMENT_TOKENS, ANSWER_TOKENS = 21_449, 15
QUESTION_TOKENS, THOUGHT_TOKENS, HEIGHT = 546, 256, 4
ARTICLE_TOKENS, JUDGEMENT_TOKENS = 2_701, 256
MESSAGE_TOKENS, REPLY_TOKENS = 56, 142
PREAMBLE_TOKENS = 600
"""S2 of the judge: what stands before each article."""
INSTRUCTION_TOKENS = 32
TURNS = (1, 5)
READING_MS = (1_000, 10_000)
"""How long a user takes to answer in a conversation."""


@frozen
class TreeOfThoughts:
    """Thoughts that branch."""

    branches: int = 2
    question_tokens: int = QUESTION_TOKENS

    def program(self, maker: Maker, client: Client, at: int) -> Program:
        """Return one tree."""
        root: tuple[Part, ...] = (maker.varied(self.question_tokens, "question"),)
        calls = [_commit(maker, root)]
        above = [(0, root)]
        for _ in range(HEIGHT):
            instruction = maker.part(INSTRUCTION_TOKENS, "instruction")
            level = []
            for parent, text in above:
                prompt = (*text, instruction)
                for _ in range(self.branches):
                    thought = maker.part(THOUGHT_TOKENS, "output")
                    level.append((len(calls), (*prompt, thought)))
                    calls.append(Call(prompt, thought, (parent,)))
            above = level
        return Program(client, at, calls)


@frozen
class Judge:
    """Branch, solve, merge: an article judged by several dimensions."""

    dimensions: int = 2
    preamble: Part | None = None
    """The same text before each article."""

    def program(self, maker: Maker, client: Client, at: int) -> Program:
        """Return the judgement of one article."""
        article = maker.varied(ARTICLE_TOKENS, "article")
        before = (article,) if self.preamble is None else (self.preamble, article)
        calls = [_commit(maker, before)]
        for _ in range(self.dimensions):
            asked = (*before, maker.part(INSTRUCTION_TOKENS, "instruction"))
            calls.append(Call(asked, maker.part(JUDGEMENT_TOKENS, "output"), (0,)))
        judged = tuple(call.output for call in calls[1:])
        merge = (*before, *judged, maker.part(INSTRUCTION_TOKENS, "instruction"))
        calls.append(Call(merge, maker.part(JUDGEMENT_TOKENS, "output"), tuple(range(1, self.dimensions + 1))))
        return Program(client, at, calls)


@frozen
class DocumentQuestions:
    """One question about one of a client's documents, in no order."""

    documents: tuple[Part, ...]

    def program(self, maker: Maker, client: Client, at: int) -> Program:
        """Return one question."""
        document = self.documents[maker.between(0, len(self.documents) - 1)]
        question = maker.varied(INSTRUCTION_TOKENS, "question")
        answer = maker.varied(ANSWER_TOKENS, "output")
        return Program(client, at, [Call((document, question), answer, max_output=_longest(ANSWER_TOKENS))])


@frozen
class Chat:
    """A conversation: every prompt is all that was said before, and a new message."""

    def program(self, maker: Maker, client: Client, at: int) -> Program:
        """Return one conversation."""
        said: tuple[Part, ...] = ()
        calls: list[Call] = []
        for turn in range(maker.between(*TURNS)):
            prompt = (*said, maker.varied(MESSAGE_TOKENS, "message"))
            reply = maker.varied(REPLY_TOKENS, "output")
            reading = maker.between(*READING_MS) * (NS_PER_S // 1000) if turn else 0
            after = (turn - 1,) if turn else ()
            calls.append(Call(prompt, reply, after, reading, max_output=_longest(REPLY_TOKENS)))
            said = (*prompt, reply)
        return Program(client, at, calls)


@frozen
class OwnPrefix:
    """A short question after a text with which all prompts of the client begin."""

    text: Part

    def program(self, maker: Maker, client: Client, at: int) -> Program:
        """Return one question."""
        question = maker.part(INSTRUCTION_TOKENS, "question")
        return Program(client, at, [Call((self.text, question), maker.part(REPLY_TOKENS, "output"))])


Kind = OwnPrefix | TreeOfThoughts | Judge | DocumentQuestions | Chat


def _commit(maker: Maker, text: tuple[Part, ...]) -> Call:
    """Return the call that has a prefix computed before a program forks from it."""
    return Call(text, maker.part(1, "output"))


def _longest(average: int) -> int:
    return average + average // 2
