"""Who is a client? Trusted proxies and API keys say so, nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fairprefix.core.config import PolicyConfig
from fairprefix.gateway.caller import Callers
from fairprefix.gateway.config import KeyConfig
from fairprefix.gateway.errors import GatewayError
from fairprefix.gateway.keys import hash_key
from fairprefix.hosting.peers import TrustedPeers
from tests.gateway.rig import Process, gateway, mock

BODY = {"prompt": "hello there", "max_tokens": 2}
KEY = "sk-alice-4711"


@pytest.fixture(scope="module")
def worker() -> Iterator[Process]:
    """Start a quick worker."""
    with mock(step_ms=1, prefill_us=1) as started:
        yield started


def seen(worker: Process) -> dict[str, dict[str, Any]]:
    """Return headers and body of the request that the worker saw last."""
    last: dict[str, dict[str, Any]] = httpx.get(f"{worker.url}/mock").json()["seen"][-1]
    return last


def test_headers_of_untrusted_peers_are_ignored_and_counted(worker: Process) -> None:
    """Whoever is no trusted proxy cannot pass for somebody else, and trying to shows in the metrics."""
    with gateway(f"{worker.url},window=4", options=("--trust", "10.0.0.0/8")) as front:
        for header in ("x-tenant-id", "x-llm-d-inference-fairness-id", "X-SMG-Routing-Key"):
            httpx.post(f"{front.url}/v1/completions", json=BODY, headers={header: "alice"}, timeout=30)
        httpx.post(f"{front.url}/v1/completions", json={**BODY, "user": "alice"}, timeout=30)
        assert [client["name"] for client in front.settled()["clients"]] == ["default-flow"]
        assert front.metrics()["fairprefix_spoofed_identity_total"] == 3


def test_an_api_key_is_its_client_and_goes_no_further(worker: Process, tmp_path: Path) -> None:
    """A key maps to a client and a weight; without one, or with another, it is a 401; the worker never sees it."""
    keys = [{"client": "alice", "sha256": hash_key(KEY), "weight": 4}]
    with gateway(f"{worker.url},window=4", settings={"keys": keys}, folder=tmp_path) as front:
        url = f"{front.url}/v1/completions"
        assert httpx.post(url, json=BODY).status_code == 401
        wrong = httpx.post(url, json=BODY, headers={"authorization": "Bearer sk-wrong"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")
        assert "sk-wrong" not in wrong.text
        assert httpx.get(f"{front.url}/v1/models").status_code == 401
        right = httpx.post(url, json=BODY, headers={"authorization": f"Bearer {KEY}"}, timeout=30)
        assert right.status_code == 200
        assert "authorization" not in seen(worker)["headers"]
        alice = front.client("alice")
        assert (alice["weight"], alice["output_tokens"]) == (4, 2)


def test_the_workers_own_key_is_shown_to_it_and_to_nobody_else(
    worker: Process, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A worker's key comes from the environment, replaces what the client shows, and is in no log or figure."""
    monkeypatch.setenv("MOCK_KEY", "sk-upstream-0815")
    with gateway(f"{worker.url},window=4,api_key_env=MOCK_KEY") as front:
        headers = {"authorization": "Bearer from-client"}
        httpx.post(f"{front.url}/v1/completions", json=BODY, headers=headers, timeout=30)
        assert seen(worker)["headers"]["authorization"] == "Bearer sk-upstream-0815"
        worker_gone = httpx.get(f"{front.admin}/metrics").text + str(front.state())
        assert "sk-upstream" not in worker_gone
    assert "sk-upstream" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("vllm", "x-llm-d-inference-fairness-id"),
        ("sglang", "x-smg-routing-key"),
        ("serve", "x-llm-d-inference-fairness-id"),
    ],
)
def test_a_worker_that_is_fair_itself_is_told_of_the_client(worker: Process, kind: str, header: str) -> None:
    """Its queue here steps aside; the name comes in that engine's own carrier, whatever the client wrote."""
    with gateway(f"{worker.url},fairprefix={kind}", options=("--trust", "127.0.0.1")) as front:
        body = {**BODY, "vllm_xargs": {"fairprefix_client": "mallory", "other": 1}}
        headers = {
            "x-tenant-id": "alice",
            "x-smg-routing-key": "mallory",
            "x-gateway-inference-fairness-id": "mallory",
        }
        httpx.post(f"{front.url}/v1/completions", json=body, headers=headers, timeout=30)
        got = seen(worker)
        assert got["headers"][header] == "alice"
        assert "mallory" not in str(got["headers"])
        assert "x-tenant-id" not in got["headers"]
        assert got["body"]["vllm_xargs"]["other"] == 1
        assert got["body"]["vllm_xargs"].get("fairprefix_client") == ("alice" if kind == "vllm" else None)
        assert front.state()["workers"][0]["window"] is None


def test_trust_is_by_network() -> None:
    """Addresses and networks of both families are known, and a mapped IPv4 address counts as what it maps."""
    peers = TrustedPeers(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])
    for address in ("10.1.2.3", "192.0.2.7", "2001:db8::1", "::ffff:10.1.2.3"):
        assert address in peers, address
    for stranger in ("11.0.0.1", "192.0.2.8", "2001:db9::1", "not an address", None):
        assert stranger not in peers, stranger
    assert "198.51.100.1" in TrustedPeers(["*"])
    assert "127.0.0.1" not in TrustedPeers([])


def test_every_key_of_many_is_known_and_no_other() -> None:
    """A thousand keys are told apart by their hashes."""
    keys = [KeyConfig(client=f"c{i}", sha256=hash_key(f"key {i}")) for i in range(1000)]
    callers = Callers(PolicyConfig(), keys, ())
    for i in (0, 500, 999):
        headers = [(b"authorization", b"bearer key %d" % i)]
        assert callers.client(headers, "198.51.100.1", None) == f"c{i}"
    with pytest.raises(GatewayError, match="unknown"):
        callers.client([(b"authorization", b"Bearer key 1000")], None, None)


def test_a_key_outranks_headers_of_strangers_and_bodies_count_only_from_trusted_peers() -> None:
    """The configured order holds among what may be believed."""
    config = PolicyConfig(identity=("header:x-tenant-id", "api_key", "body:user"))
    keys = [KeyConfig(client="alice", sha256=hash_key("k"))]
    headers = [(b"authorization", b"Bearer k"), (b"x-tenant-id", b"bob")]
    callers = Callers(config, keys, ["10.0.0.0/8"])
    assert callers.client(headers, "10.0.0.1", None) == "bob"
    assert callers.client(headers, "11.0.0.1", None) == "alice"
    assert callers.spoofed == 1
    open_to_all = Callers(config, (), ["10.0.0.0/8"])
    assert open_to_all.client([], "10.0.0.1", {"user": "carol"}) == "carol"
    assert open_to_all.client([], "11.0.0.1", {"user": "carol"}) == "default-flow"
