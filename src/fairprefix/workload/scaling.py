"""The same workload with shorter texts, for engines that are smaller than a data centre's."""

from __future__ import annotations

from attrs import evolve

from fairprefix.core.errors import reject
from fairprefix.workload.program import Call, Part, Workload


def scaled(workload: Workload, factor: float) -> Workload:
    """Return the workload with every length multiplied by `factor` (at least one token remains).

    Which parts are shared, who waits for whom, and when programs begin stay as they are.

    Raises:
        ConfigError: the factor is not above 0 and at most 1.
    """
    if isinstance(factor, bool) or not 0 < factor <= 1:
        raise reject("scale", factor, "a number above 0 and at most 1")
    if factor == 1:
        return workload
    programs = [
        evolve(program, calls=[_call(call, factor) for call in program.calls]) for program in workload.programs
    ]
    note = f"lengths multiplied by {factor:g}"
    return evolve(workload, programs=programs, notes=(*workload.notes, note))


def _call(call: Call, factor: float) -> Call:
    longest = max(_tokens(call.limit, factor), _tokens(call.output.tokens, factor))
    prompt = tuple(_part(part, factor) for part in call.prompt)
    return evolve(call, prompt=prompt, output=_part(call.output, factor), max_output=longest)


def _part(part: Part, factor: float) -> Part:
    return evolve(part, tokens=_tokens(part.tokens, factor))


def _tokens(tokens: int, factor: float) -> int:
    return max(1, round(tokens * factor))
