"""What `fairprefix simulate` prints: the policies side by side, each client, and the point in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from fairprefix.cli.output import client_name, numbers, ratio, text_table
from fairprefix.sim.simulate import RunResult

MOST_CLIENTS = 12
"""How many clients the table shows."""

Figures = dict[str, Any]


@frozen
class Row:
    """A figure in the table of policies."""

    label: str
    key: str
    digits: int | None = 0
    only_if_any: bool = False
    """Left out where it is 0 for every policy."""


def _latency_rows(title: str, name: str) -> list[Row]:
    return [Row(f"{title} {kind}, ms", f"{kind}_{name}_ms", None) for kind in ("mean", "p50", "p99")]


BLOCKS = (
    (
        Row("completed requests", "completed"),
        Row("rejected requests", "rejected", only_if_any=True),
        Row("lost with their worker", "lost", only_if_any=True),
        Row("sent again", "rerouted", only_if_any=True),
        Row("preemptions", "preemptions", only_if_any=True),
        Row("tokens computed again", "recomputed_tokens", only_if_any=True),
        Row("requests per s", "request_throughput", 2),
        Row("output tokens per s", "output_throughput", None),
        Row("all tokens per s", "total_token_throughput", None),
        Row("service units per s", "service_rate", None),
    ),
    tuple(_latency_rows("TTFT", "ttft") + _latency_rows("TPOT", "tpot") + _latency_rows("E2E", "e2el")),
    (
        Row("prefix hit rate", "prefix_hit_rate", 3),
        Row("Jain's index", "jain_index", 3),
        Row("largest gap", "max_gap"),
        Row("gap held against bound", "charged_gap"),
        Row("missed refills", "missed_refills", only_if_any=True),
        Row("bound without them", "bound_without_misses", only_if_any=True),
        Row("bound", "bound"),
    ),
)
"""The table of policies, with an empty line between blocks."""


def report(results: Sequence[RunResult], headings: Sequence[str]) -> str:
    """Return everything that is printed about the runs."""
    parts = ["\n".join(headings), policy_table(results), *footnotes(results), client_table(results)]
    parts += [worker_table(results)] if any(result.router for result in results) else []
    return "\n\n".join([*parts, closing(results)])


def policy_table(results: Sequence[RunResult]) -> str:
    """Return the figures of each policy, one column per policy."""
    figures = [result.figures for result in results]
    lines: list[list[str]] = [["", *(result.label for result in results)]]
    for block in BLOCKS:
        rows = [row for row in block if not row.only_if_any or any(each.get(row.key) for each in figures)]
        lines += [[row.label, *numbers([each.get(row.key) for each in figures], row.digits)] for row in rows]
        lines.append([])
    # The ratio belongs to the bound, right below it.
    lines[-1] = ["bound_ratio", *(_marked_ratio(result) for result in results)]
    return text_table(lines)


def _marked_ratio(result: RunResult) -> str:
    text = numbers([result.figures["bound_ratio"]], 3)[0]
    return f"{text}*" if _is_comparison(result) else text


def _is_comparison(result: RunResult) -> bool:
    """Return whether a bound is shown that the policy does not promise."""
    return result.figures["bound"] is not None and not result.figures["bound_is_claimed"]


def footnotes(results: Sequence[RunResult]) -> list[str]:
    """Return what has to be said about the table, as one block; nothing if all is plain."""
    notes = []
    compared = [result.label for result in results if _is_comparison(result)]
    if compared:
        promise = "promises none" if len(compared) == 1 else "promise none"
        notes.append(f"* held against DLPM's bound for comparison: {' and '.join(compared)} {promise}")
    notes += [
        f"  {result.label}'s bound is on service as it charges it, and not as it is computed"
        for result in results
        if result.figures["charged_gap"] is not None and result.figures["charged_gap"] != result.figures["max_gap"]
    ]
    return ["\n".join(notes)] if notes else []


def client_table(results: Sequence[RunResult]) -> str:
    """Return the figures of each client, one line per policy; of many clients those with most service."""
    shown, hidden = _largest_clients(results)
    header = ["client", "policy", "share", "contended", "hit rate", "TTFT p50", "p99", "E2E p50", "p99"]
    lines: list[list[str]] = [header]
    for client in shown:
        for place, result in enumerate(results):
            figures = result.figures["clients"].get(client)
            if figures is not None:
                lines.append([_label(client, figures) if not place else "", result.label, *_client_cells(figures)])
    legend = "share of service overall, and contended: while all clients are backlogged; latencies in ms"
    more = [f"and {hidden:,} more with less service (--json has them all)"] if hidden else []
    return "\n".join([text_table(lines, left=2), *more, legend])


def worker_table(results: Sequence[RunResult]) -> str:
    """Return the figures of each worker, one line per run and worker."""
    lines: list[list[str]] = [["run", "worker", "requests", "output tokens", "hit rate", "fails", "bound_ratio"]]
    for result in results:
        for place, worker in enumerate(result.figures["workers"]):
            counts = [worker["completed"], worker["total_output"]]
            ratios = [worker["prefix_hit_rate"], worker["bound_ratio"]]
            cells = [
                *numbers(counts, 0),
                *numbers(ratios[:1], 3),
                str(worker["failures"]),
                *numbers(ratios[1:], 3),
            ]
            lines.append([result.label if not place else "", worker["worker"], *cells])
    return "\n".join([text_table(lines, left=2), "bound_ratio: the gap at that worker alone, and its own bound"])


def _largest_clients(results: Sequence[RunResult]) -> tuple[list[str], int]:
    """Return the clients with most service over all runs, and how many others there are."""
    service: dict[str, int] = {}
    for result in results:
        for client, figures in result.figures["clients"].items():
            service[client] = service.get(client, 0) + figures["service"]
    ordered = sorted(service, key=lambda client: (-service[client], client))
    return ordered[:MOST_CLIENTS], max(len(ordered) - MOST_CLIENTS, 0)


def _label(client: str, figures: Figures) -> str:
    weight = figures["weight"]
    return client_name(client) + (f" (weight {weight})" if weight != 1 else "")


def _client_cells(figures: Figures) -> list[str]:
    shares = [figures["share"], figures["contended_share"], figures["prefix_hit_rate"]]
    latencies = [figures[f"{kind}_{name}_ms"] for name in ("ttft", "e2el") for kind in ("p50", "p99")]
    # Nobody was served while all were backlogged, or the client never was: not 0 ms.
    times: list[float | None] = latencies if figures["completed"] else [None] * len(latencies)
    return [*numbers(shares, 3), *numbers(times, 0)]


def closing(results: Sequence[RunResult]) -> str:
    """Return the point in a sentence: what one policy, DLPM if it ran, achieves beside the others."""
    chosen = next((result for result in results if result.policy == "dlpm"), results[-1])
    others = [result for result in results if result is not chosen]
    hits = f"{chosen.label}: {_hit_rate(chosen)} of prompt tokens from cache{_beside(others, _hit_rate)}"
    return f"{hits}, {_gap(chosen, others)}"


def _gap(chosen: RunResult, others: Sequence[RunResult]) -> str:
    figures = chosen.figures
    if figures["bound"] is None:
        return "and no gap, since there is one client only"
    if _is_comparison(chosen):
        return f"largest gap {figures['charged_gap']:,} = {_bound_ratio(chosen)} of DLPM's bound"
    # Only what is held against the same bound can be compared.
    same = [other for other in others if _is_comparison(other)] if chosen.policy == "dlpm" else []
    gap = f"largest gap {figures['charged_gap']:,} = {_bound_ratio(chosen)} of its bound"
    return gap + _beside(same, _bound_ratio)


def _beside(others: Sequence[RunResult], figure: Callable[[RunResult], str]) -> str:
    return f" ({', '.join(f'{other.label} {figure(other)}' for other in others)})" if others else ""


def _hit_rate(result: RunResult) -> str:
    return f"{result.figures['prefix_hit_rate']:.2f}"


def _bound_ratio(result: RunResult) -> str:
    return ratio(result.figures["bound_ratio"])
