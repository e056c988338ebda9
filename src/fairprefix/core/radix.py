"""The cached blocks of one namespace as a radix tree of runs, and the waiting prompts that end in it.

Hashes are cumulative: a block's hash stands for everything before it as well. So two chains agree up to a place if
and only if they agree AT that place, and a run of a thousand blocks is compared by looking at its last one.

Waiting prompts whose cached beginnings end at the same place share a `Stop`, and those that lack the same block to
go on share a group. An event sets whole stops and groups aside (`Aside`), whoever is in them; the owner of the
tree finds their members a new place later (`fairprefix.core.prefixes`).

Complexity: walking down costs O(1) a run that is passed and O(log) in the run where a chain leaves the tree;
adding a run costs O(1) besides, cutting one off O(stops in it), whoever waits there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from fairprefix.core.request import BlockHash, Request


class Follower:
    """A waiting request, and where the cached part of its prompt ends."""

    __slots__ = ("blocks", "request", "stop", "tokens", "tree")

    request: Request
    blocks: Sequence[BlockHash]
    tree: RunTree
    tokens: int

    def __init__(self, request: Request, tree: RunTree) -> None:
        self.request = request
        self.blocks = request.blocks
        self.tree = tree
        self.stop: Stop | None = None
        """Where it stands; None before it is placed."""
        self.tokens = 0
        """Cached tokens of its prompt, as of when it was placed."""

    @property
    def matched(self) -> int:
        """Leading blocks of its prompt that are cached, as of when it was placed."""
        return self.stop.depth if self.stop else 0


Group = dict[str, Follower]
"""Followers by the id of their request."""

Lacking = Follower | Group
"""Who lacks a block: mostly one follower, for which a dictionary would be too large."""


_AT_ONCE = 1024


class Aside:
    """Followers that events have set aside, whole groups at once; whoever has waited longest is taken first."""

    __slots__ = ("_groups", "_turn")

    def __init__(self) -> None:
        self._groups: deque[Lacking] = deque()
        self._turn: list[Follower] = []
        """The next few of the group whose turn it is, last one first."""

    def add(self, group: Lacking) -> None:
        """Set a group aside; it must not be changed but by taking members out, which is done here too. O(1)."""
        self._groups.append(group)

    def take(self) -> Follower | None:
        """Take one out, or None; it may have found its place, or gone, since. O(1), but for every 1,024th."""
        while not self._turn:
            if not self._groups:
                return None
            group = self._groups[0]
            if isinstance(group, Follower):
                self._groups.popleft()
                return group
            # A list of everybody in a large group would touch all of them at once.
            self._turn = [group.pop(id) for id in list(islice(group, _AT_ONCE))]
            self._turn.reverse()
            if not group:
                self._groups.popleft()
        return self._turn.pop()

    def ids(self) -> set[str]:
        """Return the requests of all who are set aside. O(all): for checks."""
        grouped = {follower.request.id for group in self._groups for follower in members_of(group)}
        return grouped | {follower.request.id for follower in self._turn}


def members_of(group: Lacking) -> list[Follower]:
    """Return the followers in a group."""
    return [group] if isinstance(group, Follower) else list(group.values())


class Stop:
    """A place at which the cached beginnings of waiting prompts end."""

    __slots__ = ("depth", "members", "run")

    depth: int

    def __init__(self, run: Run, depth: int) -> None:
        self.run: Run | None = run
        """None when the place is gone: its members have to be placed again."""
        self.depth = depth
        self.members: Group = {}


class Run:
    """An edge of the tree: blocks `start` to `end` of a chain, all cached."""

    __slots__ = ("blocks", "children", "end", "parent", "start", "stops")

    blocks: Sequence[BlockHash]
    start: int
    end: int
    parent: Run | None

    def __init__(self, blocks: Sequence[BlockHash], start: int, end: int, parent: Run | None) -> None:
        self.blocks = blocks
        self.start = start
        self.end = end
        self.parent = parent
        self.children: dict[BlockHash, Run] = {}
        """By their first block."""
        self.stops: dict[int, Stop] = {}
        """By depth: `start < depth <= end` (the root: 0)."""

    def below(self) -> Iterator[Run]:
        """Yield this run and all runs that continue it."""
        pending = [self]
        while pending:
            run = pending.pop()
            yield run
            pending.extend(run.children.values())


class RunTree:
    """The cached runs of one namespace.

    A cached block whose parent is not cached (a cache evicted the middle of a chain first) hangs in the air: it
    is kept by its hash alone, and becomes part of the tree when a chain that contains it is matched again.

    Args:
        gained: where followers are put of whose prompts more may be cached now.
        lost: the same, less.
    """

    followers: int

    def __init__(self, gained: Aside, lost: Aside) -> None:
        self.missing: dict[BlockHash, Lacking] = {}
        """Followers by their first block that is not cached: whom a new run concerns."""
        self.followers = 0
        self._gained = gained
        self._lost = lost
        self._root = Run((), 0, 0, None)
        self._ends: dict[BlockHash, Run] = {}
        """Every run by its last block."""
        self._loose: dict[BlockHash, None] = {}
        """Cached blocks that hang in the air."""
        self._size = 0
        """Blocks in the tree."""

    def __len__(self) -> int:
        return self._size + len(self._loose)

    def empty(self) -> bool:
        """Return whether nothing is cached and nobody follows."""
        return not (self._size or self._loose or self.followers)

    def match(self, blocks: Sequence[BlockHash]) -> tuple[Run, int]:
        """Return the run that holds the last cached block of a chain's beginning, and how many are cached."""
        run, depth = self._walk(blocks, self._root, 0, len(blocks))
        while self._loose and depth < len(blocks) and blocks[depth] in self._loose:
            end = depth
            while end < len(blocks) and blocks[end] in self._loose:
                del self._loose[blocks[end]]
                end += 1
            run, depth = self._walk(blocks, self._attach(run, depth, blocks, end), end, len(blocks))
        return run, depth

    def add(self, blocks: Sequence[BlockHash], start: int, end: int) -> None:
        """Note that `blocks[start:end]` are cached."""
        assert start < end, (start, end)
        above = self._ends.get(blocks[start - 1]) if start else None
        run, depth = self._walk(blocks, above or self._root, start if above else 0, end)
        if depth < start:
            self._loose.update(dict.fromkeys(blocks[start:end]))
        if not start <= depth < end:
            return
        for block in blocks[depth:end] if self._loose else ():
            self._loose.pop(block, None)
        self._attach(run, depth, blocks, end)
        group = self.missing.pop(blocks[depth], None)
        if group:
            self._gained.add(group)

    def cut(self, blocks: Sequence[BlockHash], start: int, end: int) -> None:
        """Note that `blocks[start:end]` are no longer cached."""
        assert start < end, (start, end)
        run = self._ends.get(blocks[end - 1])
        if run is None:
            run, depth = self._walk(blocks, self._root, 0, end)
            for block in blocks[max(depth, start) : end]:
                self._loose.pop(block, None)
            end = depth
        while end > start:
            if end < run.end:
                run = self._split(run, end)
            if run.children:
                self._loosen_children(run)
            stop = max(start, run.start)
            if run.stops:
                self._clear_stops(run, stop)
            run, end = self._shorten(run, stop), stop

    def place(self, follower: Follower) -> None:
        """Put a follower where its match ends now."""
        id, blocks = follower.request.id, follower.blocks
        run, depth = self.match(blocks)
        stop = run.stops.get(depth)
        if stop is None:
            stop = run.stops[depth] = Stop(run, depth)
        stop.members[id] = follower
        follower.stop = stop
        self.followers += 1
        if depth < len(blocks):
            known = self.missing.get(blocks[depth])
            if known is None:
                self.missing[blocks[depth]] = follower
            elif isinstance(known, Follower):
                self.missing[blocks[depth]] = {known.request.id: known, id: follower}
            else:
                known[id] = follower

    def displace(self, follower: Follower) -> None:
        """Take a follower out of its place, if that is still there."""
        id, stop, blocks = follower.request.id, follower.stop, follower.blocks
        assert stop is not None, id
        self.followers -= 1
        stop.members.pop(id, None)
        if not stop.members and stop.run is not None:
            del stop.run.stops[stop.depth]
            stop.run = None
        if stop.depth < len(blocks):
            known = self.missing.get(blocks[stop.depth])
            if isinstance(known, dict):
                known.pop(id, None)
            if known is follower or not known:
                self.missing.pop(blocks[stop.depth], None)
        follower.stop = None

    def is_placed(self, follower: Follower) -> bool:
        """Return whether a follower's place is still where its match ends."""
        stop = follower.stop
        assert stop is not None, follower.request.id
        if stop.run is None:
            return False
        if stop.depth == len(follower.blocks):
            return True
        known = self.missing.get(follower.blocks[stop.depth])
        return known is follower or (isinstance(known, dict) and follower.request.id in known)

    def reachable(self) -> set[BlockHash]:
        """Return every cached block that a match can reach. O(blocks): for checks."""
        return {block for run in self._root.below() for block in run.blocks[run.start : run.end]}

    def stops(self) -> Iterator[Stop]:
        """Yield every place where somebody stands. O(stops): for checks."""
        for run in self._root.below():
            yield from run.stops.values()

    def loose(self) -> set[BlockHash]:
        """Return the cached blocks that hang in the air."""
        return set(self._loose)

    @staticmethod
    def _walk(blocks: Sequence[BlockHash], run: Run, depth: int, end: int) -> tuple[Run, int]:
        """Follow a chain down from the end of `run`, at `depth`, as far as it is in the tree."""
        while depth < end:
            child = run.children.get(blocks[depth])
            if child is None:
                break
            run = child
            if run.end > end or run.blocks[run.end - 1] != blocks[run.end - 1]:
                return run, _agreement(run.blocks, blocks, depth + 1, min(run.end, end))
            depth = run.end
        return run, depth

    def _attach(self, run: Run, depth: int, blocks: Sequence[BlockHash], end: int) -> Run:
        """Continue `run` from `depth` on with the chain's blocks up to `end`; return the run that ends there."""
        self._size += end - depth
        if depth < run.end:
            run = self._split(run, depth)
        if run is self._root or run.children:
            below = Run(blocks, depth, end, run)
            run.children[blocks[depth]] = below
        else:
            # The chunks of one prompt become one run.
            below = run
            del self._ends[run.blocks[run.end - 1]]
            below.blocks, below.end = blocks, end
        self._ends[blocks[end - 1]] = below
        return below

    def _split(self, run: Run, depth: int) -> Run:
        """Divide a run in two; return the upper part, which is new (the lower one keeps its children)."""
        assert run.parent is not None
        upper = Run(run.blocks, run.start, depth, run.parent)
        upper.children[run.blocks[depth]] = run
        run.parent.children[run.blocks[run.start]] = upper
        run.start, run.parent = depth, upper
        for stop in [stop for place, stop in run.stops.items() if place <= depth]:
            upper.stops[stop.depth] = run.stops.pop(stop.depth)
            stop.run = upper
        self._ends[upper.blocks[depth - 1]] = upper
        return upper

    def _shorten(self, run: Run, stop: int) -> Run:
        """Cut a run without children off at `stop`; return the run that the chain ends in now."""
        assert run.parent is not None
        self._size -= run.end - stop
        del self._ends[run.blocks[run.end - 1]]
        if stop == run.start:
            del run.parent.children[run.blocks[run.start]]
            return run.parent
        run.end = stop
        self._ends[run.blocks[stop - 1]] = run
        return run

    def _clear_stops(self, run: Run, above: int) -> None:
        """Set everybody aside who stands in a run below the depth `above`."""
        for depth in [depth for depth in run.stops if depth > above]:
            stop = run.stops.pop(depth)
            stop.run = None
            self._lost.add(stop.members)

    def _loosen_children(self, run: Run) -> None:
        """Let everything that continues a run hang in the air, and set everybody aside who stands in there."""
        for child in run.children.values():
            for below in child.below():
                self._clear_stops(below, below.start)
                self._loose.update(dict.fromkeys(below.blocks[below.start : below.end]))
                self._size -= below.end - below.start
                del self._ends[below.blocks[below.end - 1]]
        run.children = {}


def _agreement(first: Sequence[BlockHash], second: Sequence[BlockHash], low: int, high: int) -> int:
    """Return the length of the common beginning of two chains, which is from `low` to `high`. O(log)."""
    while low < high:
        middle = (low + high + 1) // 2
        if first[middle - 1] == second[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
