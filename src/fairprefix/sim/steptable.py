"""Step times from measured tables, in the layout of LLMServingSim's profiler.

A folder holds these files, plain or as .gz:

* dense.csv         layer, tokens, time_us: one call of a layer over that many tokens of a batch *
per_sequence.csv  layer, sequences, time_us: the output head and the sampler, once per step * attention.csv
prefill_chunk, kv_prefill, n_decode, kv_decode, time_us: attention of one layer for a chunk
                    after `kv_prefill` cached tokens, beside `n_decode` sequences over `kv_decode` tokens EACH
* meta.json         optional: the model's name (for its number of layers) and the size of the KV cache

A step over N tokens of S sequences takes

    embedding(N) + layers * (2 * layernorm(N) + qkv_proj(N) + rotary_emb(N) + attention + o_proj(N)
    + gate_up_proj(N) + act_fn(N) + down_proj(N)) + final_layernorm(N) + lm_head(S) + sampler(S)

where attention is the sum over chunks, plus what decoding adds to the longest of them (in a mixed batch the
two are not simply additive). Between measurements values are interpolated, beyond them extrapolated
(`fairprefix.sim.grid`).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from attrs import field, frozen

from fairprefix.core.errors import ConfigError, at_least, one_of
from fairprefix.sim.decoderun import PS_PER_US, DecodeCurve, DecodeRun, HostTime
from fairprefix.sim.grid import Grid
from fairprefix.sim.hardware import MODELS
from fairprefix.sim.textfile import read_text

CALLS_PER_LAYER = {
    "layernorm": 2,
    "qkv_proj": 1,
    "rotary_emb": 1,
    "o_proj": 1,
    "gate_up_proj": 1,
    "act_fn": 1,
    "down_proj": 1,
}
CALLS_PER_STEP = ("embedding", "final_layernorm")
PER_SEQUENCE = ("lm_head", "sampler")
ATTENTION_AXES = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
PIECES_KEPT = 1 << 16
"""How many attention times of chunks are remembered."""

Point = tuple[int, ...]


@frozen(eq=False)
class TableModel:
    """Step times interpolated in tables measured layer by layer."""

    name: str
    kv_tokens: int
    """Default size of the KV cache, tokens."""
    layers: int
    host: HostTime
    dense: Mapping[str, Grid] = field(repr=False)
    """By layer name, over tokens."""
    sampled: Mapping[str, Grid] = field(repr=False)
    """By layer name, over sequences."""
    prefill: Grid = field(repr=False)
    """Attention of one layer, over (new tokens, cached tokens)."""
    decode: Grid = field(repr=False)
    """Attention of one layer, over (sequences, context of each)."""
    mixed: Grid | None = field(repr=False)
    """What decoding adds to attention beside a chunk, over (new, cached, sequences, context of each)."""
    _dense_us: dict[int, float] = field(init=False, factory=dict, repr=False)
    _sampled_us: dict[int, float] = field(init=False, factory=dict, repr=False)
    _prefill_us: dict[tuple[int, int], float] = field(init=False, factory=dict, repr=False)
    _curves: dict[int, DecodeCurve] = field(init=False, factory=dict, repr=False)

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        layers: int | None = None,
        kv_tokens: int | None = None,
        cpu_ms: float = 2.0,
        overlap: bool = True,
    ) -> TableModel:
        """Read a folder of tables.

        Args:
            path: the folder.
            layers: layers of the model; None takes them from the model's name in meta.json.
            kv_tokens: default size of the KV cache; None takes it from meta.json.
            cpu_ms: time in milliseconds that the CPU needs for a step.
            overlap: whether the CPU's time hides behind the GPU's.

        Raises:
            ConfigError: a file is missing or malformed (the message names file, line and field).
        """
        folder = Path(path)
        meta = {} if layers is not None and kv_tokens is not None else _read_meta(folder)
        attention = _read_points(folder, "attention", ATTENTION_AXES)
        return cls(
            name=f"tables of {folder.name}",
            kv_tokens=at_least("kv_tokens", _kv_tokens(meta) if kv_tokens is None else kv_tokens, 1),
            layers=at_least("layers", _layers(meta) if layers is None else layers, 1),
            host=HostTime.of(cpu_ms, overlap=overlap),
            dense=_read_layers(folder, "dense", "tokens", (*CALLS_PER_LAYER, *CALLS_PER_STEP)),
            sampled=_read_layers(folder, "per_sequence", "sequences", PER_SEQUENCE),
            prefill=_prefill_grid(attention, f"{folder}: attention of prefills"),
            decode=_decode_grid(attention, f"{folder}: attention of decodes"),
            mixed=_mixed_grid(attention, f"{folder}: attention of mixed batches"),
        )

    def step_ps(self, *, prefills: Sequence[tuple[int, int]], decodes: int, context: int) -> int:
        """Return the time of one step in ps (see `fairprefix.sim.steptime.StepTimeModel`)."""
        if not prefills:
            return self._curve(decodes).at(context) if decodes else 0
        attention = sum(self._chunk_us(new, cached) for new, cached in prefills)
        if decodes:
            attention += self._beside_us(max(prefills), decodes, context / decodes)
        tokens = decodes + sum(new for new, _ in prefills)
        sequences = decodes + len(prefills)
        gpu_us = self._dense(tokens) + self._sampled(sequences) + self.layers * attention
        return self.host.step(round(gpu_us * PS_PER_US))

    def decode_run(self, decodes: int, context: int) -> DecodeRun:
        """Return the run of decode steps that begins with `decodes` sequences over `context` tokens."""
        return DecodeRun(self._curve(decodes), decodes, context)

    def _dense(self, tokens: int) -> float:
        """Return the time in us of all dense layers over `tokens` tokens."""
        if tokens not in self._dense_us:
            per_layer = sum(calls * self.dense[name].at(tokens) for name, calls in CALLS_PER_LAYER.items())
            once = sum(self.dense[name].at(tokens) for name in CALLS_PER_STEP)
            self._dense_us[tokens] = self.layers * per_layer + once
        return self._dense_us[tokens]

    def _sampled(self, sequences: int) -> float:
        """Return the time in us of output head and sampler for `sequences` sequences."""
        if sequences not in self._sampled_us:
            self._sampled_us[sequences] = sum(self.sampled[name].at(sequences) for name in PER_SEQUENCE)
        return self._sampled_us[sequences]

    def _chunk_us(self, new: int, cached: int) -> float:
        """Return one layer's attention time in us for a chunk; one longer than any measured is cut."""
        longest = self.prefill.axes[0][-1]
        total = 0.0
        while new > longest:
            total += self._piece_us(longest, cached)
            new, cached = new - longest, cached + longest
        return total + self._piece_us(new, cached)

    def _piece_us(self, new: int, cached: int) -> float:
        if (new, cached) not in self._prefill_us:
            if len(self._prefill_us) >= PIECES_KEPT:
                self._prefill_us.clear()
            self._prefill_us[new, cached] = self.prefill.at(new, cached)
        return self._prefill_us[new, cached]

    def _beside_us(self, chunk: tuple[int, int], decodes: int, each: float) -> float:
        """Return the us that `decodes` sequences over `each` tokens add to one layer's attention."""
        if self.mixed is None:
            return self.decode.at(decodes, each)
        new = min(chunk[0], self.mixed.axes[0][-1])
        return max(0.0, self.mixed.at(new, chunk[1], decodes, each))

    def _curve(self, decodes: int) -> DecodeCurve:
        if decodes not in self._curves:
            self._curves[decodes] = self.host.curve(self._gpu_curve(decodes))
        return self._curves[decodes]

    def _gpu_curve(self, decodes: int) -> DecodeCurve:
        """Return the line through the measured contexts at this batch size.

        Up to the first measurement it is flat, and where times fall as the context grows (noise) the larger
        one holds.
        """
        knots = self.decode.axes[1]
        fixed = self._dense(decodes) + self._sampled(decodes)
        contexts = [0, *(decodes * knot for knot in knots if knot), 2 * decodes * knots[-1]]
        times_us = [fixed + self.layers * self.decode.at(decodes, context / decodes) for context in contexts]
        values = list(accumulate((max(1, round(time * PS_PER_US)) for time in times_us), max))
        # Slopes are rounded down, so that no piece ends above the start of the next.
        slopes = [
            (values[place + 1] - values[place]) // (contexts[place + 1] - contexts[place])
            for place in range(len(contexts) - 1)
        ]
        return DecodeCurve(tuple(contexts[:-1]), tuple(values[:-1]), tuple(slopes))


def _prefill_grid(attention: Mapping[Point, float], source: str) -> Grid:
    return Grid.of({at[:2]: time for at, time in attention.items() if at[0] and not at[2]}, source=source)


def _decode_grid(attention: Mapping[Point, float], source: str) -> Grid:
    return Grid.of({at[2:]: time for at, time in attention.items() if at[2] and not at[0]}, source=source)


def _mixed_grid(attention: Mapping[Point, float], source: str) -> Grid | None:
    alone = {at[:2]: time for at, time in attention.items() if not at[2]}
    added = {at: time - alone.get(at[:2], time) for at, time in attention.items() if at[0] and at[2]}
    return Grid.of(added, source=source) if added else None


def _find(folder: Path, name: str) -> Path:
    """Return the path of a file or of its .gz; where there is neither, the plain one."""
    packed = folder / f"{name}.gz"
    return packed if packed.exists() else folder / name


def _read_meta(folder: Path) -> dict[str, Any]:
    path = _find(folder, "meta.json")
    try:
        meta = json.loads(read_text(path, ConfigError))
    except json.JSONDecodeError as problem:
        raise ConfigError(f"{path}:{problem.lineno}: is not valid JSON: {problem.msg}") from problem
    if not isinstance(meta, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    return meta


def _layers(meta: Mapping[str, Any]) -> int:
    """Return the number of layers of the model that meta.json names, as in "meta-llama/Llama-3.1-8B"."""
    model = str(meta.get("model")).rpartition("/")[2].lower()
    return MODELS[one_of("meta.json: model (or give layers=)", model, MODELS)].layers


def _kv_tokens(meta: Mapping[str, Any]) -> Any:  # noqa: ANN401  # JSON: the caller checks it
    cache = meta.get("kv_cache")
    return cache.get("num_kv_tokens") if isinstance(cache, dict) else None


def _read_layers(folder: Path, table: str, axis: str, known: Sequence[str]) -> dict[str, Grid]:
    """Read a table of one line per layer and size; every known layer has to be there, and no other."""
    path = _find(folder, f"{table}.csv")
    points: dict[str, dict[Point, float]] = {name: {} for name in known}
    for line, row in _rows(path, ("layer", axis)):
        name = one_of(f"{path}:{line}: layer", row["layer"], known)
        points[name][(_whole(path, line, row, axis),)] = _time(path, line, row)
    return {name: Grid.of(measured, source=f"{path}: layer {name!r}") for name, measured in points.items()}


def _read_points(folder: Path, table: str, axes: Sequence[str]) -> dict[Point, float]:
    path = _find(folder, f"{table}.csv")
    return {
        tuple(_whole(path, line, row, axis) for axis in axes): _time(path, line, row)
        for line, row in _rows(path, axes)
    }


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a table with their line numbers."""
    reader = csv.DictReader(read_text(path, ConfigError).splitlines(), restval="")
    for column in (*columns, "time_us"):
        if column not in (reader.fieldnames or ()):
            raise ConfigError(
                f"{path}:1: column {column!r} is missing, expected {', '.join((*columns, 'time_us'))}"
            )
    return [(reader.line_num, row) for row in reader]


def _whole(path: Path, line: int, row: Mapping[str, str], column: str) -> int:
    text = row[column]
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"{path}:{line}: {column} = {text!r} is not valid: expected an integer >= 0")
    return int(text)


def _time(path: Path, line: int, row: Mapping[str, str]) -> float:
    try:
        time = float(row["time_us"])
    except ValueError:
        time = math.nan
    if not 0 < time < math.inf:
        raise ConfigError(f"{path}:{line}: time_us = {row['time_us']!r} is not valid: expected microseconds > 0")
    return time
