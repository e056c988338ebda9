"""How much of each waiting prompt is cached, kept up by looking into the cache where something has happened.

Nothing is kept about the cache itself. Whoever waits stands in two groups: by the last block of its prompt that is
cached, and by the first one that is not. A block that is cached or evicted concerns such a group, mostly none, and
sets it aside; its members are looked up in the cache again, some at a time.

A block's hash stands for everything before it as well, and vLLM evicts a prompt from its end on: what is cached of
it is a beginning, whose end is found by bisection. Should something in the middle be thrown out first (a connector
may have it so), a prompt can be taken to be cached further than it is until its end is evicted; it is charged for
what is computed all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence


class Follower:
    """A waiting request."""

    __slots__ = ("blocks", "depth", "id")

    id: str
    blocks: Sequence[bytes]
    depth: int

    def __init__(self, id: str, blocks: Sequence[bytes]) -> None:
        self.id = id
        self.blocks = blocks
        self.depth = 0
        """Leading blocks that are cached, as of the last look."""


Group = Follower | dict[str, Follower]
"""Mostly one follower, for which a dictionary would be too large; else by the ids."""


class Groups:
    """Followers by a block, or by what stands for it."""

    __slots__ = ("groups",)

    def __init__(self) -> None:
        self.groups: dict[bytes, Group] = {}
        """To be looked at only; it stays the same dictionary."""

    def add(self, block: bytes, follower: Follower) -> None:
        """Put a follower into a block's group."""
        group = self.groups.get(block)
        if group is None:
            self.groups[block] = follower
        elif isinstance(group, Follower):
            self.groups[block] = {group.id: group, follower.id: follower}
        else:
            group[follower.id] = follower

    def discard(self, block: bytes, follower: Follower) -> None:
        """Take a follower out, if it is in there."""
        group = self.groups.get(block)
        if isinstance(group, dict):
            group.pop(follower.id, None)
        if group is follower or group == {}:
            del self.groups[block]

    def pop(self, block: bytes) -> list[Follower]:
        """Take out all of a block's group."""
        return members_of(self.groups.pop(block, None))

    def holds(self, block: bytes, follower: Follower) -> bool:
        """Return whether a follower is in a block's group."""
        return follower in members_of(self.groups.get(block))


class Matches:
    """Follows the cached beginnings of waiting prompts.

    Complexity: an event O(1) if it concerns nobody, else O(whom it concerns); `changes` O(log blocks) for each of
    those who are looked up; `confirm` O(1) if nothing has happened.

    Args:
        knows: whether something is cached under a key.
        suffix: what makes a key of a block's hash.
    """

    def __init__(self, knows: Callable[[bytes], bool], suffix: bytes) -> None:
        self.corrections: int = 0
        """How often more of a prompt was cached than events had told."""
        self.lacking: Groups = Groups()
        """By the first block that is not cached."""
        self.ending: Groups = Groups()
        """By the key of the last one that is."""
        self._knows = knows
        self._suffix = suffix
        self._followers: dict[str, Follower] = {}
        self._gained: deque[Follower] = deque()
        self._lost: deque[Follower] = deque()

    def __contains__(self, id: str) -> bool:
        return id in self._followers

    def follow(self, id: str, blocks: Sequence[bytes]) -> int:
        """Follow a prompt; return how many of its leading blocks are cached."""
        follower = self._followers[id] = Follower(id, blocks)
        self._place(follower)
        return follower.depth

    def forget(self, id: str) -> None:
        """Stop following a prompt."""
        self._displace(self._followers.pop(id))

    def cached(self, block: bytes, by: str) -> bool:
        """Note that a request has a block cached; return whether several were waiting for it.

        If it was alone with it nothing is done: whoever caches something has been admitted, and is forgotten next.
        """
        group = self.lacking.groups.get(block)
        if group is None or (isinstance(group, Follower) and group.id == by):
            return False
        found = self.lacking.pop(block)
        self._gained.extend(found)
        return len(found) > 1

    def evicted(self, key: bytes) -> None:
        """Note that nothing is cached under a key any more."""
        self._lost.extend(self.ending.pop(key))

    def changes(self, most: int, *, gains_only: bool = False) -> list[tuple[str, int]]:
        """Look some prompts up that events have set aside; return (id, cached blocks) of those that have changed.

        Those who have gained come first: who has lost stands too far ahead, where the policy finds it by itself.
        """
        changed: list[tuple[str, int]] = []
        for _ in range(most):
            if self._gained:
                follower = self._gained.popleft()
            elif self._lost and not gains_only:
                follower = self._lost.popleft()
            else:
                break
            before = follower.depth
            if self._followers.get(follower.id) is follower and self._replace(follower) != before:
                changed.append((follower.id, follower.depth))
        return changed

    def confirm(self, id: str) -> int:
        """Return how many leading blocks of a prompt are cached now."""
        follower = self._followers[id]
        blocks, depth, knows, suffix = follower.blocks, follower.depth, self._knows, self._suffix
        if depth < len(blocks) and knows(blocks[depth] + suffix):
            self.corrections += self.lacking.holds(blocks[depth], follower)
        elif not depth or knows(blocks[depth - 1] + suffix):
            return depth
        return self._replace(follower)

    def restart(self, knows: Callable[[bytes], bool]) -> list[tuple[str, int]]:
        """Look all up in another cache; return (id, cached blocks) of all."""
        self._knows = knows
        return [(id, self._replace(follower)) for id, follower in self._followers.items()]

    def validate(self) -> None:
        """Check that everybody stands in its groups, or has been set aside."""
        aside = {follower.id for queue in (self._gained, self._lost) for follower in queue}
        for id, follower in self._followers.items():
            blocks, depth = follower.blocks, follower.depth
            placed = (not depth or self.ending.holds(blocks[depth - 1] + self._suffix, follower)) and (
                depth == len(blocks) or self.lacking.holds(blocks[depth], follower)
            )
            assert placed or id in aside, id
        for groups in (self.lacking.groups, self.ending.groups):
            members = [follower for group in groups.values() for follower in members_of(group)]
            assert all(self._followers.get(follower.id) is follower for follower in members)

    def _replace(self, follower: Follower) -> int:
        self._displace(follower)
        self._place(follower)
        return follower.depth

    def _place(self, follower: Follower) -> None:
        blocks = follower.blocks
        depth = follower.depth = self._search(blocks, follower.depth)
        if depth:
            self.ending.add(blocks[depth - 1] + self._suffix, follower)
        if depth < len(blocks):
            self.lacking.add(blocks[depth], follower)

    def _displace(self, follower: Follower) -> None:
        blocks, depth = follower.blocks, follower.depth
        if depth:
            self.ending.discard(blocks[depth - 1] + self._suffix, follower)
        if depth < len(blocks):
            self.lacking.discard(blocks[depth], follower)

    def _search(self, blocks: Sequence[bytes], known: int) -> int:
        """Return how many leading blocks are cached, of which `known` were at the last look. O(log blocks)."""
        knows, suffix = self._knows, self._suffix
        low, high = known, len(blocks)
        if known and not knows(blocks[known - 1] + suffix):
            low, high = 0, known - 1
        elif known == high or not knows(blocks[known] + suffix):
            return known
        while low < high:
            middle = (low + high + 1) // 2
            if knows(blocks[middle - 1] + suffix):
                low = middle
            else:
                high = middle - 1
        return low


def members_of(group: Group | None) -> list[Follower]:
    """Return the followers in a group."""
    if group is None:
        return []
    return [group] if isinstance(group, Follower) else list(group.values())
