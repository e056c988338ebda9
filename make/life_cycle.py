"""The life cycle of a request, found out by trying: every call in every stage, on a shipping policy.

`python make/diagrams.py` writes docs/life-cycle.svg with it; a test compares it with the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path

from fairprefix import DLPM, HostContract, HostError, Policy, PolicyConfig, Receipt, Refusal, Request
from fairprefix.core.lane import Stage

LIFE_CYCLE = Path(__file__).parents[1] / "docs" / "life-cycle.svg"
ID = "r"
GONE = "forgotten"
Trial = Callable[[Policy, Receipt | None], object]
Moves = Mapping[tuple[str, str], tuple[str, ...]]
"""From (stage, stage) to the calls that lead there."""

CALLS: Mapping[str, Trial] = {
    "take": lambda policy, _: policy.take(ID, extend=8, reserve=2),
    "defer(NO_ROOM)": lambda policy, _: policy.defer(ID, Refusal.NO_ROOM),
    "defer(BLOCKED)": lambda policy, _: policy.defer(ID, Refusal.BLOCKED),
    "unblock": lambda policy, _: policy.unblock(ID),
    "begin_pass": lambda policy, _: policy.begin_pass(),
    "preempt": lambda policy, _: policy.preempt(ID, output=0, keep_hold=False),
    "preempt(keep_hold)": lambda policy, _: policy.preempt(ID, output=0, keep_hold=True),
    "refund": lambda policy, receipt: policy.refund(receipt) if receipt else None,
    "finish": lambda policy, _: policy.finish(ID, output=0),
}
WAYS: Mapping[Stage, tuple[str, ...]] = {
    Stage.QUEUED: (),
    Stage.DEFERRED: ("defer(NO_ROOM)",),
    Stage.BLOCKED: ("defer(BLOCKED)",),
    Stage.RUNNING: ("take",),
    Stage.HELD: ("take", "preempt(keep_hold)"),
}
"""How a request gets into each stage."""

SPOTS = {"arrive": (60, 150), "queued": (240, 150), "deferred": (240, 30), "blocked": (240, 270),
         "running": (560, 150), "held": (560, 30), GONE: (560, 270)}  # fmt: skip
WIDE, HIGH = 96, 36
SIZE = (660, 300)
FAR = 150
"""Pixels beyond which a stage lies in between."""
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1d2733;text-anchor:middle;dominant-baseline:central}"
    ".call{font-size:11px;fill:#52606d}rect{fill:#eef3f8;stroke:#5b7a99}.end{stroke-dasharray:4 3}"
    "path{fill:none;stroke:#7d8b99;marker-end:url(#tip)}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.call{fill:#aab7c4}rect{fill:#22303d;stroke:#7fa3c7}}"
)
TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" style="fill:#7d8b99;marker-end:none"/></marker>'
)


def moves() -> Moves:
    """Return where each call leads from each stage; a call that the contract refuses there leads nowhere."""
    found: dict[tuple[str, str], list[str]] = {("arrive", "queued"): ["arrive"]}
    for stage in Stage:
        for name, call in CALLS.items():
            if name == "refund" and "take" not in WAYS[stage]:
                continue  # there is no receipt yet
            after = _tried(stage, call)
            if after is not None and after != stage.value:
                found.setdefault((stage.value, after), []).append(name)
    return {ends: tuple(names) for ends, names in found.items()}


def _tried(stage: Stage, call: Trial) -> str | None:
    """Return the stage after a call, or None where the call is refused."""
    contract = HostContract(DLPM(PolicyConfig(policy="dlpm")))
    contract.arrive(Request(ID, "a", input_tokens=8, max_output=2))
    receipt: object = None
    for step in WAYS[stage]:
        receipt = CALLS[step](contract, None) or receipt
    if _stage(contract) != stage.value:
        raise ValueError(f"{WAYS[stage]} leads to {_stage(contract)}, not to {stage.value}")
    try:
        call(contract, receipt if isinstance(receipt, Receipt) else None)
    except HostError:
        return None
    return _stage(contract)


def _stage(contract: HostContract) -> str:
    seen = contract._seen.get(ID)  # noqa: SLF001 (where the contract keeps it)
    return GONE if seen is None else seen.stage.value


def drawing(found: Moves) -> str:
    """Return the picture."""
    width, height = SIZE
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="The life cycle of a request">',
        f"<style>{STYLE}</style>",
        f"<defs>{TIP}</defs>",
    ]
    ends = {pair: calls for pair, calls in found.items() if pair[1] != GONE or pair[0] == "running"}
    for (start, end), calls in sorted(ends.items()):
        lines += _arrow(start, end, calls, there_and_back=(end, start) in ends)
    lines += [_box(name) for name in sorted(SPOTS)]
    if any(end == GONE and start != "running" for start, end in found):
        x, y = SPOTS[GONE]
        lines.append(f'<text class="call" x="{x - 150}" y="{y + 9}">finish: from any stage, once</text>')
    return "\n".join([*lines, "</svg>", ""])


def _arrow(start: str, end: str, calls: Iterable[str], *, there_and_back: bool) -> list[str]:
    (x, y), (to_x, to_y) = SPOTS[start], SPOTS[end]
    level = y == to_y
    away = (9 if (to_x > x if level else to_y > y) else -9) if there_and_back else 0
    if level:
        side = WIDE // 2 if to_x > x else -WIDE // 2
        path = f"M{x + side} {y - away}L{to_x - side} {y - away}"
        middle = ((x + to_x) // 2, y - away + (-9 if away >= 0 else 12))
    elif x == to_x and abs(to_y - y) > FAR:  # around what lies between
        edge, out = x + WIDE // 2, x + 2 * WIDE
        path = f"M{edge} {y + 9}C{out} {y + 9} {out} {to_y - 9} {edge} {to_y - 9}"
        middle = (out + 6, to_y - 60)
    elif x == to_x:
        side = HIGH // 2 if to_y > y else -HIGH // 2
        path = f"M{x + away} {y + side}L{x + away} {to_y - side}"
        middle = (x + (58 if away > 0 else -58 if away < 0 else 40), (y + to_y) // 2)
    else:
        path = f"M{x + WIDE // 2} {y}L{to_x - WIDE // 2} {to_y - HIGH // 2}"
        middle = ((x + to_x) // 2, (y + to_y) // 2 - 18)
    label = escape(", ".join(calls))
    return [f'<path d="{path}"/>', f'<text class="call" x="{middle[0]}" y="{middle[1]}">{label}</text>']


def _box(name: str) -> str:
    x, y = SPOTS[name]
    kind = ' class="end"' if name in ("arrive", GONE) else ""
    return (
        f'<rect{kind} x="{x - WIDE // 2}" y="{y - HIGH // 2}" width="{WIDE}" height="{HIGH}" rx="6"/>'
        f'<text x="{x}" y="{y}">{escape(name)}</text>'
    )
