"""Which quantum to choose: the rule of thumb, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fairprefix.paper.figures.canvas import INK, OURS, PUBLISHED, canvas, png, present
from fairprefix.paper.rules import QUANTUM, SMALL, Scale, programs_per_client
from fairprefix.paper.section import Figure, Result, Section, Table, Task, Verdict, number
from fairprefix.paper.spec import Spec
from fairprefix.workload.kinds import ARTICLE_TOKENS, INSTRUCTION_TOKENS, REPLY_TOKENS

CLIENTS = 24
KV_TOKENS = 32_768
"""Room for half of the clients' prefixes."""
MULTIPLES = (0.25, 0.5, 1, 2, 4, 8, 16)
"""Of the prefix: the quanta that are tried."""
OUTPUT_COST = 2
TURNS_JUDGED = 5
WITHIN = 1.6
"""The rule of thumb may be wrong by this factor and still be one."""

ANSWER = (
    "Which quantum should I choose? If the cache holds every client's prefixes at once, any: a small one "
    "(1,000) is "
    "the fairest and costs nothing. If it does not, a client's turn costs one prefix that has to be computed "
    "again, of "
    "P tokens, and a turn lasts a quantum Q: the share of all service that is spent on computing again is about "
    "w_e P / Q while Q > w_e P. So choose Q = w_e P / ε for the overhead ε that you can afford: with ε = 5 % "
    "twenty "
    "prefixes. The gap that is promised grows with Q: 2 (w_e L + w_q M + Q) with memory reserved for the longest "
    "output, so a quantum far below w_q M (the memory in tokens, twice) buys no fairness any more. "
    "`fairprefix tune TRACE` measures P in a trace of yours, tries the quanta around the rule's, and recommends "
    "one."
)


def _spec(scale: Scale, multiple: float | None) -> Spec:
    """Return the simulation of a quantum, or, for None, of LPM."""
    return Spec(
        workload="OwnPrefix",
        system="lpm" if multiple is None else "d2lpm",
        clients=CLIENTS,
        divisor=scale.divisor,
        hardware=SMALL,
        quantum=QUANTUM if multiple is None else round(multiple * ARTICLE_TOKENS),
        load=20.0,
        seed=scale.seeds[0],
        engine={"kv_tokens": KV_TOKENS},
        gaps=True,
    )


def _tasks(scale: Scale) -> Sequence[Task]:
    return [_spec(scale, multiple) for multiple in (*MULTIPLES, None)]


def overhead(result: Result, clients: int) -> float:
    """Return the share of all service that computed prefixes again."""
    own = clients * ARTICLE_TOKENS + INSTRUCTION_TOKENS * result["requests"]
    again = max(result["extend_tokens"] - own, 0)
    return float(again / (result["extend_tokens"] + OUTPUT_COST * result["output_tokens"]))


def _build(scale: Scale, by_key: Mapping[str, Result]) -> Section:
    results = [by_key[_spec(scale, multiple).key] for multiple in MULTIPLES]
    measured = [overhead(result, CLIENTS) for result in results]
    rule = [min(1.0, 1 / multiple) for multiple in MULTIPLES]
    rows = tuple(
        (
            f"Q = {multiple:g} P = {round(multiple * ARTICLE_TOKENS):,}",
            f"{expected:.1%}",
            f"{found:.1%}",
            number(result["service_rate"]),
            number(result["max_gap"]),
            f"{result['hit_rate']:.1%}",
        )
        for multiple, expected, found, result in zip(MULTIPLES, rule, measured, results, strict=True)
    )
    lpm = by_key[_spec(scale, None).key]
    floor = overhead(lpm, CLIENTS)
    rows += (
        (
            "LPM",
            "–",
            f"{floor:.1%}",
            number(lpm["service_rate"]),
            number(lpm["max_gap"]),
            f"{lpm['hit_rate']:.1%}",
        ),
    )
    count = programs_per_client("OwnPrefix", 1, CLIENTS, scale.divisor)
    work = count * (INSTRUCTION_TOKENS + OUTPUT_COST * REPLY_TOKENS)
    judged = [
        (m, e, f)
        for m, e, f in zip(MULTIPLES, rule, measured, strict=True)
        if 1 < m <= work / TURNS_JUDGED / ARTICLE_TOKENS
    ]
    off = [max(expected / max(found, 1e-9), found / expected) for _, expected, found in judged]
    verdict = Verdict(
        f"the overhead is w_e P / Q for quanta above a prefix, as long as a client has {TURNS_JUDGED} turns or "
        f"more",
        max(off) <= WITHIN if off else None,
        f"off by a factor of up to {max(off):.2f} for Q from {judged[0][0]:g} to {judged[-1][0]:g} P; beyond "
        f"that a "
        f"client's {work:,} units are a few turns, and LPM, without any turns, has {floor:.1%} itself"
        if off
        else "the runs are too short",
    )
    figure, ((axes,),) = canvas(1, 1, (7, 4))
    axes.plot(MULTIPLES, present(rule), color=INK, label="rule: P / Q", **PUBLISHED)
    axes.plot(MULTIPLES, present(measured), color="#0072B2", label="simulated", **OURS)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("Q / P", fontsize=9)
    axes.set_title("share of service that computes prefixes again", fontsize=9, loc="left")
    axes.legend(frameon=False, fontsize=9)
    headers = ("", "rule", "simulated", "tokens/s", "largest gap", "cache hits")
    text = (
        f"{ANSWER} The check: {CLIENTS} clients, each with a prefix of {ARTICLE_TOKENS:,} tokens and {count} "
        f"questions "
        f"about it, all at once; {KV_TOKENS:,} tokens of memory hold half of the prefixes, one A10G."
    )
    return Section(
        "quantum",
        "Which quantum should I choose?",
        text,
        (Table("overhead by quantum", headers, rows),),
        (verdict,),
        {"quantum": png(figure)},
    )


FIGURE = Figure("quantum", "the rule Q = w_e P / overhead, checked", _tasks, _build)
