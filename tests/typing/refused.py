"""Mistakes that type checkers find before anything runs: each line is one, and both checkers have to refuse it.

An ignore that silences nothing is an error (`warn_unused_ignores`, `reportUnnecessaryTypeIgnoreComment`): if a
line becomes acceptable to either of them, `make lint` or `make types` fails. Nothing in here runs.
"""

from __future__ import annotations

import fairprefix
from fairprefix import (
    CostWeights,
    HostContract,
    Policy,
    PolicyConfig,
    Prefixes,
    PrefixIndex,
    Receipt,
    Request,
    Router,
    bounds,
    chain_hashes,
    make_policy,
)
from fairprefix.testing import Claims, check_policy


def requests() -> None:
    """A request is frozen, and its lengths are numbers."""
    request = Request("r", "alice", input_tokens=32, max_output=8)
    request.client = "bob"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    Request("r", "alice", input_tokens="32", max_output=8)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Request("r", "alice")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Request("r", "alice", 32, 8, tokens=(1,))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def configurations() -> None:
    """Misspelt settings, and settings of another type."""
    PolicyConfig(quantums=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    PolicyConfig(quantum=0.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PolicyConfig(weights=["alice"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    CostWeights("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def a_host(policy: Policy, receipt: Receipt, request: Request) -> None:
    """A host that would break the contract."""
    policy.take("r", 32, 8)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    policy.take(request, extend=32, reserve=8)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    policy.defer("r", "no room")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    policy.finish("r")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    policy.produced({"alice": 0.5})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    policy.refund("r")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    policy.peek().id  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]  # noqa: B018
    receipt.extend = 0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


class NoPolicy:
    """Lacks most of what a policy has."""

    def peek(self) -> Request | None:
        """Return nobody."""
        return None


class WrongAnswer:
    """A view whose answer is no number of tokens."""

    def watch(self, request: Request) -> str:
        """Return a name."""
        return request.id

    def forget(self, id: str) -> None:
        """Do nothing."""

    def changes(self) -> list[tuple[str, int]]:
        """Return nothing."""
        return []

    def confirm(self, id: str) -> int:
        """Return nothing."""
        return len(id)


def interfaces(prefixes: Prefixes) -> Router:
    """What lacks a method, or returns something else, does not fit."""
    HostContract(NoPolicy())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    make_policy(PolicyConfig(), WrongAnswer())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return make_policy(PolicyConfig(), prefixes)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


def tools(engine: bounds.Engine) -> None:
    """Bounds, hashes and the kit."""
    bounds.dlpm_both_backlogged(engine, quantum=2048)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    chain_hashes("a prompt", 16)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    check_policy(PrefixIndex, claims=Claims())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    check_policy(make_policy, Claims())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    fairprefix.DLMP  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # noqa: B018
