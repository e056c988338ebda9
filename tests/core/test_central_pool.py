"""A central pool: each worker is kept at one queued request of each client while the pool lasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fairprefix.core.central_pool import CentralPool
from fairprefix.core.errors import ConfigError, HostError
from fairprefix.core.request import Request
from fairprefix.core.routing import Choice
from fairprefix.core.worker_index import ExactIndex


def pool(*workers: str, depth: int = 1, look: int = 8) -> CentralPool:
    """Return a pool for some workers, with blocks of one token."""
    made = CentralPool(block_size=1, depth=depth, look=look)
    for worker in workers:
        assert made.worker_joined(worker) == []
    return made


def request(id: str, *path: int, prompt: int = 9, namespace: str = "") -> Request:
    """Return a request of the client that its id begins with."""
    return Request(id, id[0], prompt, 1, path, namespace)


def told(choices: Sequence[Choice]) -> list[str]:
    """Return what is handed to whom, in short."""
    return [f"{choice.request}>{choice.worker}" for choice in choices]


def arrive(to: CentralPool, *ids: str) -> list[str]:
    """Let requests arrive; return what is handed to whom."""
    return [text for id in ids for text in told(to.arrive(request(id)))]


def test_each_worker_gets_one_request_of_each_client_and_the_rest_waits() -> None:
    """A client's requests beyond one a worker stay in the pool; another client's do not wait for them."""
    made = pool("u", "v")
    assert arrive(made, "a1", "a2", "a3", "b1") == ["a1>u", "a2>v", "b1>u"]
    assert (made.waiting("a"), made.waiting("b"), made.waiting("c")) == (1, 0, 0)
    made.validate()


def test_an_admission_is_followed_by_the_next_request() -> None:
    """The worker that took one into its batch gets the next one at once."""
    made = pool("u", "v")
    arrive(made, "a1", "a2", "a3", "a4")
    assert told(made.admitted("a2")) == ["a3>v"]
    assert told(made.admitted("a1")) == ["a4>u"]
    assert told(made.admitted("a3")) == []
    made.validate()


def test_deeper_queues_can_be_asked_for() -> None:
    """`depth` requests of a client are kept queued at each worker."""
    made = pool("u", depth=3)
    assert arrive(made, "a1", "a2", "a3", "a4") == ["a1>u", "a2>u", "a3>u"]


def test_a_worker_gets_the_request_that_it_has_cached() -> None:
    """Of a client's oldest requests the one with the longest match; of equals the oldest."""
    made = pool("u", look=3)
    for id, path in (("a1", (1, 2)), ("a2", (7,)), ("a3", (1, 9)), ("a4", (1, 2, 3)), ("a5", (1, 2))):
        made.arrive(request(id, *path))
    choices = made.admitted("a1")
    assert told(choices) == ["a4>u"], "a5 matches as much and is younger"
    assert choices[0].cached_tokens == 2
    assert told(made.admitted("a4")) == ["a5>u"]
    assert told(made.admitted("a5")) == ["a3>u"]
    made.validate()


def test_only_the_oldest_requests_are_considered() -> None:
    """What one top-up costs is bounded."""
    made = pool("u", look=1)
    for id, path in (("a1", (1, 2)), ("a2", (7,)), ("a3", (1, 2))):
        made.arrive(request(id, *path))
    assert told(made.admitted("a1")) == ["a2>u"]


def test_of_several_workers_the_oldest_request_goes_where_it_is_cached() -> None:
    """A worker that holds it is better than one that is merely idle."""
    made = pool("u", "v")
    made.arrive(request("a1", 5))
    made.arrive(request("a2", 1, 2))
    made.admitted("a1")
    made.admitted("a2")
    assert told(made.arrive(request("a3", 1, 2))) == ["a3>v"]


def test_a_preempted_request_counts_as_queued_again() -> None:
    """The worker is not topped up beyond it."""
    made = pool("u")
    arrive(made, "a1")
    made.admitted("a1")
    made.preempted("a1")
    assert arrive(made, "a2") == []
    with pytest.raises(HostError, match="'a1' is queued at its worker already"):
        made.preempted("a1")
    assert told(made.admitted("a1")) == ["a2>u"]
    made.validate()


def test_a_request_may_end_wherever_it_is() -> None:
    """In the pool, queued at a worker (which is topped up then), or running."""
    made = pool("u")
    arrive(made, "a1", "a2", "a3", "a4")
    assert made.finish("a3") == []
    assert told(made.finish("a1")) == ["a2>u"]
    made.admitted("a2")
    assert made.finish("a2") == []
    assert made.workers.named("u").load == 1
    made.validate()


def test_a_new_worker_is_filled_and_a_suspended_one_is_not() -> None:
    """Whoever joins or is back gets what waits."""
    made = pool("u")
    arrive(made, "a1", "a2", "a3", "b1", "b2")
    made.worker_suspended("u")
    assert told(made.admitted("a1")) == []
    assert told(made.worker_joined("v", blocks=5)) == ["a2>v", "b2>v"]
    assert told(made.worker_resumed("u")) == ["a3>u"]
    made.validate()


def test_a_worker_that_leaves_returns_its_requests() -> None:
    """They are forgotten, and may arrive anew."""
    made = pool("u", "v")
    arrive(made, "a1", "a2", "a3")
    made.admitted("a1")
    assert made.worker_left("u") == ("a1", "a3")
    assert arrive(made, "a1") == []
    assert told(made.admitted("a2")) == ["a1>v"]
    made.validate()


def test_wrong_calls_are_refused() -> None:
    """A request arrives once, and is admitted where it is queued."""
    made = pool("u")
    arrive(made, "a1", "a2")
    for id in ("a1", "a2"):
        with pytest.raises(HostError, match="has arrived already"):
            made.arrive(request(id))
    made.admitted("a1")
    with pytest.raises(HostError, match="'a1' is not queued at its worker"):
        made.admitted("a1")
    with pytest.raises(HostError, match="'x' is at no worker"):
        made.finish("x")


@pytest.mark.parametrize("name", ["depth", "look", "block_size", "worker_blocks"])
def test_a_size_of_nothing_is_named(name: str) -> None:
    """Each number is at least 1, and the error says which one is not."""
    sizes: dict[str, Any] = {name: 0}
    with pytest.raises(ConfigError, match=f"^{name} = 0 .* integer >= 1"):
        CentralPool(**sizes)
    sizes[name] = 1
    CentralPool(**sizes)


def test_what_is_not_said_is_as_documented() -> None:
    """Blocks of 16 tokens, one queued request each, eight are looked at, and caches of 32 768 blocks."""
    made = CentralPool()
    made.worker_joined("u")
    worker = made.workers.named("u")
    assert (made.block_size, made.depth, worker.blocks, worker.weight) == (16, 1, 32_768, 1)
    made.arrive(request("a1", 1, 2, prompt=40))
    for number in range(2, 10):
        made.arrive(request(f"a{number}", 100 + number))
    made.arrive(request("az", 1, 2, prompt=40))
    assert told(made.admitted("a1")) == ["a2>u"], "the ninth of those that wait is not looked at"
    assert told(made.admitted("a2")) == ["az>u"], "the eighth is"


def test_a_worker_may_say_how_much_it_can_cache() -> None:
    """Only as much is taken to be cached there."""
    made = pool()
    made.worker_joined("u", blocks=2)
    assert made.workers.named("u").blocks == 2
    made.arrive(request("a1", 1, 2, 3, 4))
    made.arrive(request("a2", 1, 2, 3, 4))
    assert made.admitted("a1")[0].cached_tokens == 2


def test_what_is_cached_may_be_told_by_the_workers() -> None:
    """An index that is handed in is used, and knows nothing of dispatches."""
    index = ExactIndex()
    made = CentralPool(block_size=1, index=index)
    made.worker_joined("u")
    index.stored(0, (1, 2))
    assert [choice.cached_tokens for id in ("a1", "b1") for choice in made.arrive(request(id, 1, 2, 3))] == [2, 2]


def test_what_is_cached_is_told_in_tokens_and_never_the_whole_prompt() -> None:
    """Two blocks of four are eight tokens; the last token of a prompt is computed in any case."""
    made = CentralPool(block_size=4, depth=9)
    made.worker_joined("u")
    choices = [
        choice
        for number, prompt in enumerate((9, 9, 8))
        for choice in made.arrive(request(f"a{number}", 1, 2, prompt=prompt))
    ]
    assert [choice.cached_tokens for choice in choices] == [0, 8, 7]
    assert [choice.again for choice in choices] == [False] * 3


def test_namespaces_do_not_share() -> None:
    """What is cached under a salt is a match for prompts with that salt alone."""
    made = pool("u", depth=9)
    cached = [
        choice.cached_tokens
        for id, namespace in (("a1", "salt"), ("a2", "salt"), ("a3", ""))
        for choice in made.arrive(request(id, 1, 2, namespace=namespace))
    ]
    assert cached == [0, 2, 0]


def test_a_worker_gets_the_request_that_it_has_cached_under_its_salt() -> None:
    """An older one with equal blocks, but another salt, is no match."""
    made = pool("u")
    for id, namespace in (("a1", "salt"), ("a2", ""), ("a3", "salt")):
        made.arrive(request(id, 1, 2, namespace=namespace))
    assert told(made.admitted("a1")) == ["a3>u"]


def test_of_several_workers_the_oldest_request_goes_where_its_salt_is() -> None:
    """The one that had the salted prompt, though the other one was used longer ago."""
    made = pool("u", "v")
    made.arrive(request("a1", 5))
    made.arrive(request("a2", 1, 2, namespace="salt"))
    made.admitted("a1")
    made.admitted("a2")
    assert told(made.arrive(request("a3", 1, 2, namespace="salt"))) == ["a3>v"]
