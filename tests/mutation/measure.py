"""Mutation testing of the core: run by `make mutation`, which goes on where it was interrupted.

Results of functions that are as they were when docs/mutation.json was written are taken from there; a changed
function is measured again. A mutant that survived is tried again whenever nobody has said why it is equivalent.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.file_mutation import compute_function_hashes
from mutmut.stats import status_by_exit_code

from tests.mutation.outcome import (
    CORE,
    PAGE,
    RESULT,
    ROOT,
    Function,
    Measured,
    Outcome,
    Survivor,
    core_files,
    mangled,
    read_outcome,
    readable,
    sha256_of,
)
from tests.mutation.page import page

CACHE = ROOT / "mutants"
MEMORY_BYTES = 6 << 30
"""A mutant that eats memory without end is stopped here."""
KILLED, SURVIVED, TIMEOUT, UNKNOWN = 1, 0, 36, None
"""Exit codes in the tool's records."""


def main(arguments: Sequence[str]) -> None:
    """Measure what has not been measured, and write the outcome; with --note only write down what is known."""
    os.chdir(ROOT)
    if "--note" in arguments:
        _write(noted(read_outcome()))
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    _seed()
    _forget_what_no_test_reached()
    try:
        _run()
        again = [name for name, survivor in _survivors() if not survivor.reason()]
        if again:
            print(f"{len(again)} survivors without a reason are tried again")
            _run(again)
    finally:
        _write(_outcome())


def _write(outcome: Outcome) -> None:
    RESULT.write_text(outcome.to_json(), encoding="utf-8")
    PAGE.write_text(page(outcome), encoding="utf-8")
    unexplained = sum(not survivor.reason() for survivor in outcome.survivors)
    figures = f"{outcome.mutants} mutants, {outcome.killed_share:.1%} noticed"
    print(f"{figures}, {unexplained} survivors without a reason, {outcome.pending} functions not measured yet")


def _run(names: Sequence[str] = ()) -> None:
    """Let the tool measure these mutants, or all that have no result yet."""
    # Which test reaches which function is found anew: the tool does so for new tests, not for new functions.
    (CACHE / "mutmut-stats.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *names]
    subprocess.run(command, check=True, env=os.environ | {"HYPOTHESIS_PROFILE": "mutation"})  # noqa: S603


def _seed() -> None:
    """Hand the committed results to the tool, where it has none of its own."""
    if not RESULT.exists():
        return
    for measured in read_outcome().files:
        record = _record(measured.file)
        if not record.exists():
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps(as_record(measured)), encoding="utf-8")


def as_record(measured: Measured) -> dict[str, Any]:
    """Return a file's results as the tool writes them down."""
    codes: dict[str, int] = {}
    for name, function in measured.functions.items():
        key = f"fairprefix.core.{Path(measured.file).stem}.{mangled(name)}__mutmut_"
        for number in range(1, function.mutants + 1):
            survived, late = number in function.survived, number in function.timeout
            codes[f"{key}{number}"] = SURVIVED if survived else TIMEOUT if late else KILLED
    return {
        "exit_code_by_key": codes,
        "hash_by_function_name": {mangled(name): f.hash for name, f in measured.functions.items() if f.mutants},
        "type_check_error_by_key": {},
        "durations_by_key": {},
        "estimated_durations_by_key": {},
    }


def _forget_what_no_test_reached() -> None:
    """Have mutants measured again that no test reached, or whose test ended in an unclear way."""
    for file in core_files():
        if _record(file).exists():
            data = json.loads(_record(file).read_text(encoding="utf-8"))
            codes = data["exit_code_by_key"]
            clear = ("killed", "survived", "timeout")
            data["exit_code_by_key"] = {
                key: code if code is not None and status_by_exit_code[code] in clear else UNKNOWN
                for key, code in codes.items()
            }
            _record(file).write_text(json.dumps(data), encoding="utf-8")


def _record(file: str) -> Path:
    return CACHE / CORE / f"{file}.meta"


def _codes(file: str) -> tuple[dict[str, int | None], dict[str, str]]:
    """Return the exit code of each mutant of a file, and the hash of each function."""
    if not _record(file).exists():
        return {}, {}
    data = json.loads(_record(file).read_text(encoding="utf-8"))
    return data["exit_code_by_key"], data["hash_by_function_name"]


def _survivors() -> Iterator[tuple[str, Survivor]]:
    """Yield the tool's name of each mutant that no test noticed, and the mutant."""
    for file in core_files():
        for key, code in _codes(file)[0].items():
            if code is not None and status_by_exit_code[code] not in ("killed", "timeout"):
                name, _, number = key.rpartition(".")[2].partition("__mutmut_")
                diff = get_diff_for_mutant(key, path=str(CORE / file)).splitlines()
                change = [line for line in diff if line[:1] in ("-", "+") and line[:3] not in ("---", "+++")]
                yield key, Survivor(file, readable(name), int(number), tuple(change))


def _outcome() -> Outcome:
    """Return what the tool has found."""
    files = tuple(map(_measured, core_files()))
    whole = {(each.file, name) for each in files for name in each.functions}
    survivors = [survivor for _, survivor in _survivors() if (survivor.file, survivor.function) in whole]
    return Outcome(f"mutmut {version('mutmut')}", files, tuple(survivors))


def _measured(file: str) -> Measured:
    """Return what the tool has found in a file; a function without mutants is measured as well."""
    codes, hashes = _codes(file)
    found = functions_of(codes, hashes)
    now = _hashes(file)
    unclear = {key.rpartition(".")[2].partition("__mutmut_")[0] for key, code in codes.items() if code is None}
    pending = {name for name in now if mangled(name) in unclear or not _record(file).exists()}
    pending |= {name for name, function in found.items() if now.get(name) != function.hash}
    functions = {name: found.get(name, Function(hash, 0)) for name, hash in now.items() if name not in pending}
    return Measured(file, sha256_of(file), functions, tuple(sorted(pending & now.keys())))


def noted(before: Outcome) -> Outcome:
    """Return an earlier outcome, without the functions that have changed since."""
    known = {each.file: each.functions for each in before.files}
    files = []
    for file in core_files():
        kept = {
            name: known[file][name]
            for name, hash in _hashes(file).items()
            if name in known.get(file, {}) and known[file][name].hash == hash
        }
        files.append(Measured(file, sha256_of(file), kept, tuple(sorted(_hashes(file).keys() - kept.keys()))))
    whole = {(each.file, name) for each in files for name in each.functions}
    survivors = [each for each in before.survivors if (each.file, each.function) in whole]
    return Outcome(before.tool, tuple(files), tuple(survivors))


def _hashes(file: str) -> dict[str, str]:
    """Return the hash of each function of a file as it is now."""
    source = (ROOT / CORE / file).read_text(encoding="utf-8")
    return {readable(name): hash for name, hash in compute_function_hashes(source).items()}


def functions_of(codes: dict[str, int | None], hashes: dict[str, str]) -> dict[str, Function]:
    """Return what became of the mutants of each function, from the tool's records."""
    found: dict[str, dict[int, str]] = {name: {} for name in hashes}
    for key, code in codes.items():
        name, _, number = key.rpartition(".")[2].partition("__mutmut_")
        found.setdefault(name, {})[int(number)] = "survived" if code is None else status_by_exit_code[code]
    return {
        readable(name): Function(
            hashes.get(name, ""),
            len(each),
            tuple(sorted(n for n, status in each.items() if status not in ("killed", "timeout"))),
            tuple(sorted(n for n, status in each.items() if status == "timeout")),
        )
        for name, each in found.items()
        if each
    }


if __name__ == "__main__":
    main(sys.argv[1:])
