"""The simplest step-time model that fits an engine: a floor, a price per token, and one per token of context."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, field, fields, frozen

from fairprefix.core.errors import ConfigError, at_least, nearest, reject
from fairprefix.sim.decoderun import PS_PER_MS, PS_PER_US, DecodeCurve, DecodeRun
from fairprefix.sim.textfile import read_text

PS_PER_NS = 1000


@frozen(kw_only=True)
class AffineParameters:
    """The figures of the model.

    Raises:
        ConfigError: one of them is negative or not finite.
    """

    step_ms: float
    """The shortest step, milliseconds: reading all weights once."""
    token_us: float
    """Microseconds per token of a step, computed prompt or output."""
    context_ns: float
    """Nanoseconds per token of context that a decoding sequence looks back on."""
    pair_ps: float = 0.0
    """Picoseconds per pair of a computed prompt token and a token that it looks back on."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        for attribute in fields(type(self)):
            value = getattr(self, attribute.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise reject(attribute.name, value, "a finite number >= 0")


@frozen(eq=False)
class AffineModel:
    """step = max(floor, token * tokens) + context * tokens of context + pair * pairs of the prompts."""

    name: str
    kv_tokens: int
    """Default size of the KV cache, tokens."""
    parameters: AffineParameters
    _curves: dict[int, DecodeCurve] = field(init=False, factory=dict, repr=False)

    def step_ps(self, *, prefills: Sequence[tuple[int, int]], decodes: int, context: int) -> int:
        """Return the time of one step in ps (see `fairprefix.sim.steptime.StepTimeModel`)."""
        if not prefills:
            return self._curve(decodes).at(context) if decodes else 0
        tokens = decodes + sum(new for new, _ in prefills)
        pairs = sum(new * cached + new * (new + 1) // 2 for new, cached in prefills)
        return self._dense_ps(tokens) + context * self._context_ps + round(pairs * self.parameters.pair_ps)

    def decode_run(self, decodes: int, context: int) -> DecodeRun:
        """Return the run of decode steps that begins with `decodes` sequences over `context` tokens."""
        return DecodeRun(self._curve(decodes), decodes, context)

    @property
    def _context_ps(self) -> int:
        return round(self.parameters.context_ns * PS_PER_NS)

    def _dense_ps(self, tokens: int) -> int:
        floor, per_token = self.parameters.step_ms * PS_PER_MS, self.parameters.token_us * PS_PER_US
        return max(1, round(max(floor, per_token * tokens)))

    def _curve(self, decodes: int) -> DecodeCurve:
        if decodes not in self._curves:
            self._curves[decodes] = DecodeCurve((0,), (self._dense_ps(decodes),), (self._context_ps,))
        return self._curves[decodes]

    def dump(self) -> str:
        """Return the model as JSON that `load_affine` reads."""
        return json.dumps({"name": self.name, "kv_tokens": self.kv_tokens, **asdict(self.parameters)}, indent=2)


def load_affine(path: str | Path) -> AffineModel:
    """Return a model from a file that `fairprefix calibrate --out` wrote.

    Raises:
        ConfigError: the file cannot be read, or a value is missing, unknown or invalid.
    """
    text = read_text(Path(path), ConfigError)
    try:
        values: Any = json.loads(text)
    except json.JSONDecodeError as problem:
        raise ConfigError(f"{path}:{problem.lineno}: is not valid JSON: {problem.msg}") from problem
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    known = ("name", "kv_tokens", *(attribute.name for attribute in fields(AffineParameters)))
    for key in values:
        if key not in known:
            raise ConfigError(f"{path}: unknown field {key!r}{nearest(key, known)}; known: {', '.join(known)}")
    for key in ("kv_tokens", "step_ms", "token_us", "context_ns"):
        if key not in values:
            raise ConfigError(f"{path}: {key} is missing")
    name, kv_tokens = values.pop("name", Path(path).stem), values.pop("kv_tokens")
    return AffineModel(str(name), at_least("kv_tokens", kv_tokens, 1), AffineParameters(**values))
