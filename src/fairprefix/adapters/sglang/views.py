"""SGLang's objects, as far as this adapter looks at them; SGLang itself is not imported here."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Protocol

from attrs import define

from fairprefix.core.cost import Receipt
from fairprefix.core.prefixes import chain_hashes
from fairprefix.core.request import Client

HEALTH_CHECK = "HEALTH_CHECK"
"""How the id of a request begins with which SGLang asks itself whether it is alive."""


class Req(Protocol):
    """`schedule_batch.Req`."""

    rid: str
    sampling_params: Any
    routing_key: str | None
    extra_key: str | None

    @property
    def origin_input_ids(self) -> Sequence[int]:
        """The prompt."""
        ...

    @property
    def output_ids(self) -> Sequence[int]:
        """What was produced so far."""
        ...

    def finished(self) -> bool:
        """Return whether it is done, aborted or failed."""
        ...


class Batch(Protocol):
    """`schedule_batch.ScheduleBatch`."""

    reqs: list[Req]
    prefix_lens: list[int]
    extend_lens: list[int]


@define(eq=False)
class Tracked:
    """A request that the policy knows, and what has been charged for it."""

    req: Req
    id: str
    """Its name to the policy: its rid, made unique."""
    client: Client
    seq: int
    """Its place in the order of arrival."""
    waiting: bool = True
    matched: int = 0
    """Cached tokens, as SGLang's tree last said."""
    delivered: int = 0
    """Output tokens charged."""
    receipt: Receipt | None = None
    extend: int = 0
    """Tokens that the present admission has to compute."""
    computed: int = 0
    """How many of these were given to the model so far; a long prompt comes in chunks."""
    index: int = 0
    """Where it stood in the list of waiting requests..."""
    removed: int = 0
    """...when so many had been removed from that list."""
    put_back: int = 0
    """How often it was put behind others because one of them brings its prefix into the cache."""

    @property
    def tokens(self) -> int:
        """Tokens that have to be in the cache for it to go on."""
        return len(self.req.origin_input_ids) + len(self.req.output_ids)


def prompt_length(req: Req) -> int:
    """Return the length of the prompt, at least 1 (an aborted request may have none left)."""
    return max(len(req.origin_input_ids), 1)


def prompt_blocks(req: Req, block: int) -> Sequence[int]:
    """Return the cumulative hashes of the full blocks of its prompt."""
    tokens = req.origin_input_ids
    data = tokens if isinstance(tokens, array) and tokens.typecode == "q" else array("q", tokens)
    return chain_hashes(data.tobytes(), 2 * block)  # a token is twice as wide here as the core takes it to be


def longest_output(req: Req) -> int:
    """Return the most tokens that it may produce, at least 1 (scoring asks for none)."""
    return max(req.sampling_params.max_new_tokens or 0, 1)


def delivered(req: Req) -> int:
    """Return how many tokens its client got so far.

    Speculative decoding may accept tokens beyond the end of the text; SGLang cuts them off, and so do we.
    """
    produced = len(req.output_ids)
    end = getattr(req, "finished_len", None)
    return min(produced if end is None else min(produced, end), longest_output(req))


def is_health_check(req: Req) -> bool:
    """Return whether SGLang made this request itself."""
    return str(req.rid).startswith(HEALTH_CHECK)


def cache_namespace(req: Req) -> str:
    """Return what separates its cached prefixes from those of others: LoRA adapter, cache salt."""
    return "\0".join(str(part) for part in (req.extra_key, getattr(req, "cache_salt", None)) if part)
