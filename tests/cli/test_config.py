"""Claims about configuration files and `fairprefix config`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairprefix.cli.config import DOCS
from fairprefix.configfile import KNOWN, find_problems, load_config
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError

EXPECTED = PolicyConfig(quantum=77, weights={"alice": 3}, identity=("lora",))
GOOD = {
    "fair.toml": 'quantum = 77\nidentity = ["lora"]\n[weights]\nalice = 3\n',
    "fair.json": '{"quantum": 77, "weights": {"alice": 3}, "identity": ["lora"]}',
    "fair.yaml": "quantum: 77\nweights:\n  alice: 3\nidentity: [lora]\n",
    "fair.YML": "quantum: 77\nweights: {alice: 3}\nidentity: [lora]\n",
}

WriteFile = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteFile:
    """Return a function that writes a file."""

    def run(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return run


class TestFiles:
    """Every format gives the same configuration, and says where it is wrong."""

    @pytest.mark.parametrize("name", GOOD)
    def test_formats(self, write: WriteFile, name: str) -> None:
        """TOML, JSON and YAML say the same thing."""
        assert load_config(write(name, GOOD[name])) == EXPECTED

    @pytest.mark.parametrize("name", ["fair.toml", "fair.yaml"])
    def test_an_empty_file_is_all_defaults(self, write: WriteFile, name: str) -> None:
        """Leaving everything out leaves everything as it is."""
        assert load_config(write(name, "")) == PolicyConfig()

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("f.toml", "quantum = ", "is not valid TOML"),
            ("f.toml", "quantum = 1\nquantum = 2", "is not valid TOML"),
            ("f.json", "{", "is not valid JSON"),
            ("f.json", '{"quantum": 1, "quantum": 2}', "'quantum' is given twice"),
            ("f.json", "[1]", "expected a table of settings, and not list"),
            ("f.yaml", "a: [", "is not valid YAML"),
            ("f.yaml", "just text", "expected a table of settings, and not str"),
            ("f.yaml", "weights: {5: 2}", "the name 5 is not text: write it in quotes"),
            ("f.ini", "", "the type '.ini' is unknown, expected one of .toml, .json, .yaml, .yml"),
        ],
    )
    def test_files_that_cannot_be_read(self, write: WriteFile, name: str, text: str, message: str) -> None:
        """The message names the file and what is wrong with it."""
        path = write(name, text)
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert message in str(caught.value)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        """A file that is not there is no empty one."""
        with pytest.raises(ConfigError, match="cannot be read: No such file"):
            load_config(tmp_path / "absent.toml")

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        """Anything but UTF-8 is refused."""
        path = tmp_path / "f.toml"
        path.write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match="is not text in UTF-8"):
            load_config(path)

    def test_yaml_without_its_extra(self, write: WriteFile, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without PyYAML the message says how to get it."""
        monkeypatch.setitem(sys.modules, "yaml", None)
        with pytest.raises(ConfigError, match=r"pip install 'fairprefix\[yaml\]'"):
            load_config(write("f.yaml", "quantum: 1"))


class TestProblems:
    """All problems are found at once."""

    def test_each_is_reported(self) -> None:
        """Unknown keys, bad values, bad weights and bad sources: one message each."""
        problems = find_problems(
            {
                "quantim": 1,
                "gatte": "deficit",
                "quantum": 0,
                "gate": "open",
                "weights": {"a": 0, "b": 1, "c": "x"},
                "identity": ["lora", "cookie:x", "header:"],
            }
        )
        assert len(problems) == 8
        text = "\n".join(problems)
        for part in ("'quantum'?", "'gate'?", "quantum = 0", "gate = 'open'", "['a'] = 0", "['c'] = 'x'"):
            assert part in text
        assert "'cookie:x'" in text
        assert "'header:'" in text

    def test_settings_that_exclude_each_other(self) -> None:
        """Settings that are valid by themselves are checked together."""
        assert len(find_problems({"gate": "credit", "overdraft": 5})) == 1
        assert len(find_problems({"cost_extend": 0, "cost_output": 0})) == 1
        assert len(find_problems({"gate": "credit", "overdraft": 5, "quantum": 0})) == 2

    def test_a_valid_configuration_has_none(self) -> None:
        """The defaults are valid."""
        assert find_problems(PolicyConfig().to_mapping()) == []


class TestCheck:
    """`fairprefix config check` prints what is in effect, or everything that is wrong."""

    def test_a_good_file(self, call: Callable[..., Any], write: WriteFile) -> None:
        """Every setting is printed, with where it comes from."""
        outcome = call("config", "check", write("fair.toml", GOOD["fair.toml"]))
        assert (outcome.code, outcome.err) == (0, "")
        rows = {line.split()[0]: line.split()[1:] for line in outcome.out.splitlines()[3:]}
        assert list(rows) == list(KNOWN)
        assert rows["quantum"] == ["77", "file"]
        assert rows["gate"] == ['"deficit"', "default"]

    def test_a_bad_file(self, refused: Callable[..., str], write: WriteFile) -> None:
        """All problems in one message, a line each."""
        path = write("fair.toml", "quantim = 1\ngate = 'open'\n")
        first, *others = refused("config", "check", path).splitlines()
        assert first == f"{path}: 2 problems"
        assert len(others) == 2

    def test_json_of_a_good_file(self, call: Callable[..., Any], write: WriteFile) -> None:
        """For programs: the effective settings."""
        outcome = call("config", "check", write("fair.json", GOOD["fair.json"]), "--json")
        answer = json.loads(outcome.out)
        assert (outcome.code, answer["valid"], answer["problems"]) == (0, True, [])
        assert PolicyConfig.from_mapping(answer["settings"]) == EXPECTED

    @pytest.mark.parametrize(("text", "count"), [("quantim = 1\nslack = -1", 2), ("=", 1)])
    def test_json_of_a_bad_file(self, call: Callable[..., Any], write: WriteFile, text: str, count: int) -> None:
        """For programs: the problems, and exit code 2."""
        outcome = call("config", "check", write("fair.toml", text), "--json")
        answer = json.loads(outcome.out)
        assert (outcome.code, answer["valid"], answer["settings"]) == (2, False, None)
        assert len(answer["problems"]) == count


class TestShow:
    """`fairprefix config show` prints a file to start from."""

    def test_it_is_the_default_configuration(self, call: Callable[..., Any], write: WriteFile) -> None:
        """What it prints is valid, and changes nothing."""
        assert load_config(write("fair.toml", call("config", "show").out)) == PolicyConfig()

    def test_its_comments_are_valid_too(self, call: Callable[..., Any], write: WriteFile) -> None:
        """A setting that is commented out can be used as it stands."""
        text = call("config", "show").out
        for name in ("bounded_wait", "alice"):
            text = text.replace(f"# {name} =", f"{name} =")
        config = load_config(write("fair.toml", text))
        assert config.bounded_wait == 16
        assert config.weights == {"alice": 2}

    def test_every_setting_is_explained(self, call: Callable[..., Any]) -> None:
        """A new setting needs its line of documentation."""
        assert set(DOCS) == set(KNOWN)
        text = call("config", "show").out
        for name in KNOWN:
            assert f"{name} = " in text or f"[{name}]" in text
            assert DOCS[name].text in text
