"""The packaged sample: three clients whose demand exceeds one A10G, one of whom floods it.

    client  asks                                                      what it tests
    flood   short questions about eighty long documents, in a burst   hits need locality, and locality favours it
    chat    conversations of several turns, whose prompts grow        small prompts and long answers
    agent   loops of tool calls after a system prompt in common       a prefix that always pays to keep

Sized for Llama-3.1-8B on an A10G (37,500 tokens of KV cache, about 3,100 prompt tokens a second): the documents
together are many times the cache, and for minutes everybody has more to do than there is time for. In order of
arrival, and longest prefix first as well, the flood gets hundreds of thousands of service units more than others.
"""

from __future__ import annotations

import gzip
from importlib.resources import as_file, files
from pathlib import Path

from attrs import define, field

from fairprefix.sim.trace.draws import Draws
from fairprefix.sim.trace.generic import dump_request, load_generic
from fairprefix.sim.trace.record import NS_PER_MS, Trace, TraceRequest

BLOCK_SIZE = 16
SAMPLE = "sample.jsonl.gz"
NOTE = "synthetic sample: a client that floods, conversations, and agents with tools"

DOCUMENTS = 80
INSTRUCTION_TOKENS = 2304
"""What all documents begin with: longer than the agent's system prompt, so that LPM prefers the flood."""
DOCUMENT_TOKENS = (1500, 5600)
QUESTIONS_PER_DOCUMENT = (4, 6)
FLOOD_MS = 40_000

CONVERSATIONS = 40
TURNS = (2, 4)
FIRST_MESSAGE_TOKENS = (200, 900)
NEXT_MESSAGE_TOKENS = (40, 250)
CHAT_BEGINS_MS = 80_000

LOOPS = 24
CALLS = (4, 5)
SYSTEM_PROMPT_TOKENS = 2048
TASK_TOKENS = (200, 500)
TOOL_RESULT_TOKENS = (400, 1000)
AGENT_BEGINS_MS = 80_000


@define
class _Hashes:
    """Numbers the distinct blocks of all texts."""

    used: int = 0

    def new(self) -> int:
        self.used += 1
        return self.used


@define
class _Text:
    """A growing text, and the cumulative hashes of its full blocks."""

    hashes: _Hashes
    tokens: int = 0
    blocks: list[int] = field(factory=list)

    def grow(self, tokens: int) -> None:
        """Append new text: every block that it completes is seen for the first time."""
        self.tokens += tokens
        while len(self.blocks) < self.tokens // BLOCK_SIZE:
            self.blocks.append(self.hashes.new())

    def copy(self) -> _Text:
        """Return a text that begins alike and goes on differently; only a whole number of blocks is shared."""
        return _Text(self.hashes, self.tokens, list(self.blocks))

    def ask(self, client: str, arrival_ms: int, output_tokens: int) -> TraceRequest:
        """Return the request with this text as its prompt."""
        return TraceRequest(
            arrival_ns=arrival_ms * NS_PER_MS,
            client=client,
            input_tokens=self.tokens,
            output_tokens=output_tokens,
            blocks=tuple(self.blocks),
        )


def generate_sample(seed: int = 0) -> Trace:
    """Return the sample; it is a function of the seed alone."""
    return Trace(SAMPLE, _requests(seed), BLOCK_SIZE, has_clients=True, notes=(NOTE,))


def sample_lines(seed: int = 0) -> list[str]:
    """Return the lines of the sample's file: text by text and not by arrival, so that gzip finds what repeats."""
    return [dump_request(request, BLOCK_SIZE, with_client=True) for request in _requests(seed)]


def write_sample(path: Path) -> None:
    """Write the packaged file: `generate_sample(seed=0)`, compressed, the same bytes every time."""
    text = "".join(f"{line}\n" for line in sample_lines())
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def load_sample() -> Trace:
    """Return the sample that comes with the package: `generate_sample(seed=0)`."""
    with as_file(files("fairprefix.sim") / "data" / SAMPLE) as path:
        return load_generic(path).noted(NOTE)


def _requests(seed: int) -> list[TraceRequest]:
    hashes = _Hashes()
    return [
        *_flood(Draws(f"flood/{seed}"), hashes),
        *_chat(Draws(f"chat/{seed}"), hashes),
        *_agent(Draws(f"agent/{seed}"), hashes),
    ]


def _flood(draws: Draws, hashes: _Hashes) -> list[TraceRequest]:
    """Ask about documents in no order: by arrival, they have left the cache when the next question comes."""
    instructions = _Text(hashes)
    instructions.grow(INSTRUCTION_TOKENS)
    requests = []
    for _ in range(DOCUMENTS):
        document = instructions.copy()
        document.grow(draws.between(*DOCUMENT_TOKENS) // BLOCK_SIZE * BLOCK_SIZE)
        for _ in range(draws.between(*QUESTIONS_PER_DOCUMENT)):
            prompt = document.copy()
            prompt.grow(draws.between(30, 150))
            requests.append(prompt.ask("flood", draws.between(0, FLOOD_MS), draws.between(30, 150)))
    return requests


def _chat(draws: Draws, hashes: _Hashes) -> list[TraceRequest]:
    """Hold conversations: a prompt is all that was said before, answers included, and a new message."""
    requests = []
    for _ in range(CONVERSATIONS):
        said = _Text(hashes)
        arrival_ms = draws.between(0, CHAT_BEGINS_MS)
        said.grow(draws.between(*FIRST_MESSAGE_TOKENS))
        for _ in range(draws.between(*TURNS)):
            answer = draws.between(80, 250)
            requests.append(said.ask("chat", arrival_ms, answer))
            said.grow(answer + draws.between(*NEXT_MESSAGE_TOKENS))
            arrival_ms += draws.between(8_000, 20_000)
    return requests


def _agent(draws: Draws, hashes: _Hashes) -> list[TraceRequest]:
    """Run loops: a prompt is the system prompt, the task, and all calls with their results so far."""
    system = _Text(hashes)
    system.grow(SYSTEM_PROMPT_TOKENS)
    requests = []
    for _ in range(LOOPS):
        loop = system.copy()
        arrival_ms = draws.between(0, AGENT_BEGINS_MS)
        loop.grow(draws.between(*TASK_TOKENS))
        for _ in range(draws.between(*CALLS)):
            call = draws.between(50, 200)
            requests.append(loop.ask("agent", arrival_ms, call))
            loop.grow(call + draws.between(*TOOL_RESULT_TOKENS))
            arrival_ms += draws.between(4_000, 10_000)
    return requests
