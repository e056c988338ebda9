"""Prefix information of a request, as trace files give it."""

from __future__ import annotations

from fairprefix.sim.trace.rows import Row


def full_blocks(row: Row, name: str, input_tokens: int, block_size: int) -> tuple[int, ...]:
    """Return the hashes of a prompt's full blocks.

    A file may list one more than the full blocks: the hash of a last, partial one. That one is dropped, since
    engines cache full blocks only. An absent or empty list means that nothing is known about prefixes.

    Raises:
        TraceError: the field is no list of distinct integers, or does not cover the prompt.
    """
    hashes = row.fields.get(name)
    if hashes is None:
        return ()
    if not isinstance(hashes, list) or not all(type(value) is int for value in hashes):
        raise row.error(name, "a list of integers, one per block")
    full, partial = divmod(input_tokens, block_size)
    if hashes and not full <= len(hashes) <= full + bool(partial):
        counts = f"{full} or {full + 1}" if partial else f"{full}"
        raise row.error(
            name,
            f"{counts} of them: the {len(hashes)} hash_ids do not cover input_tokens ({input_tokens} tokens in "
            f"blocks of {block_size})",
        )
    if len(set(hashes)) != len(hashes):
        raise row.error(name, "distinct values: a cumulative hash cannot come twice in one prompt")
    return tuple(hashes[:full])
