"""`fairprefix doctor` tells what is there, what is missing and what is wrong, and how to mend it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fairprefix.cli import findings
from tests.cli.conftest import Call

Found = dict[str, dict[str, str]]
"""What was found, by subject."""


def doctor(call: Call) -> tuple[int, Found]:
    """Run the program; return its exit code and what it found."""
    outcome = call("doctor", "--json")
    assert outcome.err == ""
    return outcome.code, {each["subject"]: each for each in json.loads(outcome.out)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder whose packages come before all others."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "uvicorn", raising=False)
    return tmp_path


def install(folder: Path, package: str, version: str, source: str = "") -> None:
    """Put a package of this name into a folder."""
    about = folder / f"{package}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (folder / f"{package.replace('-', '_')}.py").write_text(source)


def test_what_development_needs_is_there_and_nothing_is_wrong(call: Call) -> None:
    """In this environment the extras that the tests use are found, and the exit code is 0."""
    outcome = call("doctor")
    assert outcome.code == 0
    for extra in ("engine", "server", "testing", "report", "yaml"):
        assert any(line.split()[:2] == [extra, "ok"] for line in outcome.out.splitlines()), extra
    assert "cores" in outcome.out


def test_a_package_that_cannot_be_imported_is_wrong(call: Call, folder: Path) -> None:
    """What is installed and broken is told with its reason; the command that mends it stands beside."""
    install(folder, "uvicorn", "99.0", "raise RuntimeError('built for another machine')")
    code, found = doctor(call)
    assert code == 1
    assert found["server"]["status"] == "wrong"
    assert "built for another machine" in found["server"]["detail"]
    assert "pip install 'fairprefix[server]'" in found["server"]["detail"]


def test_a_package_that_is_too_old_is_wrong(call: Call, folder: Path) -> None:
    """Less than the least version that an extra asks for will not do."""
    install(folder, "uvicorn", "0.9")
    code, found = doctor(call)
    assert code == 1
    assert "uvicorn 0.9 is older than 0.30" in found["server"]["detail"]


def test_an_engine_of_an_untested_version_is_told(call: Call, folder: Path) -> None:
    """VLLM and SGLang of versions that no test has run on are named."""
    install(folder, "vllm", "0.99.0")
    install(folder, "sglang", "0.4.0")
    code, found = doctor(call)
    assert code == 1
    assert "0.99.0" in found["vLLM"]["detail"]
    assert "0.4.0" in found["SGLang"]["detail"]


def test_an_engine_of_a_tested_version_is_fine(call: Call, folder: Path) -> None:
    """VLLM and SGLang of versions in the range are fine."""
    install(folder, "vllm", "0.32.0")
    install(folder, "sglang", "0.5.23")
    code, found = doctor(call)
    assert code == 0
    assert found["vLLM"]["status"] == found["SGLang"]["status"] == "ok"


def test_the_configuration_of_the_environment_is_checked(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """What FAIRPREFIX_CONFIG says is read as an engine would read it."""
    monkeypatch.setenv("FAIRPREFIX_CONFIG", '{"quantum": 4096}')
    code, found = doctor(call)
    assert (code, found["FAIRPREFIX_CONFIG, FAIRPREFIX_POLICY"]["status"]) == (0, "ok")
    monkeypatch.setenv("FAIRPREFIX_CONFIG", '{"quantumm": 4096}')
    code, found = doctor(call)
    assert code == 1
    assert "did you mean 'quantum'" in found["FAIRPREFIX_CONFIG, FAIRPREFIX_POLICY"]["detail"]


def test_every_extra_says_what_it_is_for(call: Call) -> None:
    """None stands there without a purpose; those that are missing name the command that brings them."""
    _, found = doctor(call)
    extras = [each for each in found.values() if each["topic"] == "extras"]
    assert {each["subject"] for each in extras} == findings.WHAT_FOR.keys()
    for each in extras:
        assert each["detail"].startswith(findings.WHAT_FOR[each["subject"]])
        assert each["status"] == "ok" or f"pip install 'fairprefix[{each['subject']}]'" in each["detail"]


def test_extras_are_read_from_the_metadata() -> None:
    """Names, least versions, extras of extras, and what belongs to no extra."""
    lines = [
        "attrs>=23.2",
        "tomli>=2; python_version < '3.11'",
        "torch>=2.5; extra == 'engine'",
        "numpy; extra == 'engine'",
        "fairprefix[engine]; extra == 'gpu'",
        "flashinfer-python>=0.6.7; extra == 'gpu'",
        "ray[serve]>=2.56; extra == 'ray'",
    ]
    assert findings.requirements(lines) == {
        "engine": [("torch", "2.5"), ("numpy", "")],
        "gpu": [("flashinfer-python", "0.6.7"), ("torch", "2.5"), ("numpy", "")],
        "ray": [("ray", "2.56")],
    }
