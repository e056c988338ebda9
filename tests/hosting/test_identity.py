"""A client's name comes from the first source that the operator trusts, and is fit for logs and labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairprefix.core.config import DEFAULT_IDENTITY
from fairprefix.hosting.identity import DEFAULT_CLIENT, Identity, clean_name, key_name

EVERYTHING = (
    "client_id",
    "header:X-Tenant-Id",
    "xargs:who",
    "api_key",
    "lora",
    "session",
    "body:metadata.user_id",
)


def test_the_first_source_that_names_somebody_decides() -> None:
    """Each is used when those before it are silent."""
    identity = Identity(EVERYTHING)
    body = {"vllm_xargs": {"who": "xargs"}, "metadata": {"user_id": 7}}
    headers = {"x-tenant-id": "header"}
    assert identity.resolve(headers=headers, body=body, client_id="host", api_key="secret", session="s1") == "host"
    assert identity.resolve(headers=headers, body=body, api_key="secret") == "header"
    assert identity.resolve(body=body) == "xargs"
    assert identity.resolve(api_key="secret", lora="adapter") == key_name("secret")
    assert identity.resolve(lora="adapter", session="s1") == "adapter"
    assert identity.resolve(session="s1") == "s1"
    assert identity.resolve(body={"metadata": {"user_id": 7}}) == "7"
    assert identity.resolve(body={"metadata": "text"}) == DEFAULT_CLIENT


def test_what_clients_write_counts_only_where_it_is_trusted() -> None:
    """A spoofed header, field or session names nobody."""
    identity = Identity(EVERYTHING, default="nobody")
    body = {"vllm_xargs": {"who": "x"}, "metadata": {"user_id": "x"}}
    assert identity.resolve(headers={"x-tenant-id": "x"}, body=body, session="x", trusted=False) == "nobody"
    assert identity.resolve(headers={"x-tenant-id": "x"}, api_key="k", trusted=False) == key_name("k")


def test_an_api_key_cannot_be_read_from_the_name() -> None:
    """The name is a hash."""
    assert "secret" not in key_name("my-secret-key")
    assert key_name("a") != key_name("b")


@pytest.mark.parametrize("name", [None, "", "  ", "\x00\n", True, 1.5, ["a"], {"a": 1}])
def test_what_is_no_name_names_nobody(name: object) -> None:
    """Nothing but non-empty text and whole numbers is a name."""
    assert clean_name(name) is None


@given(st.text())
def test_a_clean_name_is_printable_and_short(text: str) -> None:
    """No control characters, at most 128 characters."""
    name = clean_name(text)
    assert name is None or (name.isprintable() and 0 < len(name) <= 128)


def test_long_names_stay_different() -> None:
    """Cutting a name does not merge two clients."""
    assert clean_name("a" * 200 + "b") != clean_name("a" * 200 + "c")


def test_the_default_sources_work() -> None:
    """They are those of the configuration."""
    assert Identity(DEFAULT_IDENTITY).resolve(headers={"x-llm-d-inference-fairness-id": "team"}) == "team"
