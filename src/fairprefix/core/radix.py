"""The cached blocks of one namespace as a radix tree of runs, and the waiting prompts that end in it.

Hashes are cumulative: a block's hash stands for everything before it as well. So two chains agree up to a place if
and only if they agree AT that place, and a run of a thousand blocks is compared by looking at its last one.

Complexity: walking down costs O(1) a run that is passed and O(log) in the run where a chain leaves the tree;
adding or cutting off a run costs O(1) besides, plus the waiting prompts whose match it changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import define, field

from fairprefix.core.request import BlockHash, Request


@define(eq=False)
class Follower:
    """A waiting request, and where the cached part of its prompt ends."""

    request: Request
    tree: RunTree
    run: Run = field(factory=lambda: Run((), 0, 0, None))
    """Where it hangs (nowhere yet, at first)."""
    matched: int = 0
    """Leading blocks of its prompt that are cached."""


@define(eq=False)
class Run:
    """An edge of the tree: blocks `start` to `end` of a chain, all cached."""

    blocks: Sequence[BlockHash]
    start: int
    end: int
    parent: Run | None
    children: dict[BlockHash, Run] = field(factory=dict)
    """By their first block."""
    followers: dict[str, Follower] = field(factory=dict)
    """Waiting requests whose match ends in here: `start < matched <= end` (the root: `matched` 0)."""

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
    """

    def __init__(self) -> None:
        self.missing: dict[BlockHash, dict[str, Follower]] = {}
        """Followers by their first block that is not cached: whom a new run concerns."""
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
        return not (len(self) or self._root.followers)

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

    def add(self, blocks: Sequence[BlockHash], start: int, end: int) -> list[Follower]:
        """Note that `blocks[start:end]` are cached; return whose match this may lengthen."""
        if start >= end:
            return []
        above = self._ends.get(blocks[start - 1]) if start else None
        run, depth = self._walk(blocks, above or self._root, start if above else 0, end)
        if depth < start:
            self._loose.update(dict.fromkeys(blocks[start:end]))
        if not start <= depth < end:
            return []
        for block in blocks[depth:end] if self._loose else ():
            self._loose.pop(block, None)
        self._attach(run, depth, blocks, end)
        return list(self.missing.get(blocks[depth], {}).values())

    def cut(self, blocks: Sequence[BlockHash], start: int, end: int) -> list[Follower]:
        """Note that `blocks[start:end]` are no longer cached; return whose match this shortens."""
        if start >= end:
            return []
        run = self._ends.get(blocks[end - 1])
        if run is None:
            run, depth = self._walk(blocks, self._root, 0, end)
            for block in blocks[max(depth, start) : end]:
                self._loose.pop(block, None)
            end = depth
        concerned: list[Follower] = []
        while end > start:
            if end < run.end:
                run = self._split(run, end)
            concerned += self._loosen_children(run)
            stop = max(start, run.start)
            concerned += [follower for follower in run.followers.values() if follower.matched > stop]
            run, end = self._shorten(run, stop), stop
        return concerned

    def place(self, follower: Follower) -> None:
        """Put a follower where its match ends now."""
        id, blocks = follower.request.id, follower.request.blocks
        follower.run, follower.matched = self.match(blocks)
        follower.run.followers[id] = follower
        if follower.matched < len(blocks):
            self.missing.setdefault(blocks[follower.matched], {})[id] = follower

    def displace(self, follower: Follower) -> None:
        """Take a follower out of its place."""
        id, blocks, matched = follower.request.id, follower.request.blocks, follower.matched
        del follower.run.followers[id]
        if matched < len(blocks):
            waiting = self.missing[blocks[matched]]
            del waiting[id]
            if not waiting:
                del self.missing[blocks[matched]]

    def reachable(self) -> set[BlockHash]:
        """Return every cached block that a match can reach. O(blocks): for checks."""
        return {block for run in self._root.below() for block in run.blocks[run.start : run.end]}

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
        upper = Run(run.blocks, run.start, depth, run.parent, {run.blocks[depth]: run})
        run.parent.children[run.blocks[run.start]] = upper
        run.start, run.parent = depth, upper
        for id in [id for id, follower in run.followers.items() if follower.matched <= depth]:
            follower = upper.followers[id] = run.followers.pop(id)
            follower.run = upper
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

    def _loosen_children(self, run: Run) -> list[Follower]:
        """Let everything that continues a run hang in the air; return who had matched into it."""
        concerned: list[Follower] = []
        for child in run.children.values():
            for below in child.below():
                concerned += below.followers.values()
                self._loose.update(dict.fromkeys(below.blocks[below.start : below.end]))
                self._size -= below.end - below.start
                del self._ends[below.blocks[below.end - 1]]
        run.children = {}
        return concerned


def _agreement(first: Sequence[BlockHash], second: Sequence[BlockHash], low: int, high: int) -> int:
    """Return the length of the common beginning of two chains, which is from `low` to `high`. O(log)."""
    while low < high:
        middle = (low + high + 1) // 2
        if first[middle - 1] == second[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
