"""docs/integrate/gateway.md: what it shows is valid, and what it tells to type works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fairprefix.cli.gateway import read_all
from fairprefix.cli.main import make_parser
from fairprefix.configfile import read_settings
from fairprefix.gateway.config import make_settings
from tests.gateway.rig import mock

PAGE = (Path(__file__).parents[2] / "docs" / "integrate" / "gateway.md").read_text()


def blocks(kind: str) -> list[str]:
    """Return the page's blocks in a language."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_the_file_of_the_page_is_valid(tmp_path: Path) -> None:
    """It is read without a complaint, and says what the page says."""
    (tmp_path / "gateway.toml").write_text(blocks("toml")[0])
    settings = make_settings(read_settings(tmp_path / "gateway.toml"), "page")
    assert [worker.window for worker in settings.workers] == [64, None]
    assert settings.workers[1].fairprefix == "vllm"
    assert settings.policy.weight("premium") == 4  # what stands at the key counts


def test_the_commands_of_the_page_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway starts as it is told to, and the page's questions are answered."""
    start, *questions = [block for block in blocks("sh") if "127.0.0.1" in block]
    with mock(step_ms=1) as one, mock(step_ms=1) as two:
        words = shlex.split(start.replace("8000", str(one.port)).replace("8001", str(two.port)))
        monkeypatch.syspath_prepend(".")
        command = [sys.executable, "-m", *words, "--port", "0", "--admin-port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as gateway:  # noqa: S603
            try:
                assert gateway.stdout is not None
                lines = [gateway.stdout.readline() for _ in range(3)]
                public, admin = (re.findall(r"127\.0\.0\.1:(\d+)", line)[0] for line in lines[:2])
                asked = "\n".join(questions).replace("8080", public).replace("8081", admin)
                done = subprocess.run(["sh", "-ec", asked], capture_output=True, text=True, check=True)  # noqa: S603, S607
            finally:
                gateway.kill()
    answer, _ = json.JSONDecoder().raw_decode(done.stdout)
    assert answer["choices"][0]["text"] == "tok " * 8
    assert '"name":"alice"' in done.stdout
    assert "fairprefix_worker_window" in done.stdout


def test_the_recipes_start_a_gateway(tmp_path: Path) -> None:
    """The commands of the systemd unit and of the container are ones that the program understands."""
    unit = re.search(r"^ExecStart=(.*)$", blocks("ini")[0], re.MULTILINE)
    entry = re.search(r"^ENTRYPOINT (.*)$", blocks("dockerfile")[0], re.MULTILINE)
    assert unit
    assert entry
    file = tmp_path / "gateway.toml"
    file.write_text(blocks("toml")[0])
    for words in (shlex.split(unit[1]), json.loads(entry[1])):
        assert Path(words[0]).name == "fairprefix"
        options = [str(file) if word.startswith("/etc") else word for word in words[1:]]
        assert read_all(make_parser().parse_args(options)).gateway.port == 8080


def test_each_code_of_the_page_is_one_of_ours() -> None:
    """The table of errors has every code that the gateway gives, and no other."""
    table = PAGE.split("| answer | when |")[1].split("\n\n")[0]
    told = set(re.findall(r"`([a-z]+_[a-z_]+)`", table)) - {"max_body", "max_queued", "queue_timeout_s"} | {
        "draining"
    }
    sources = Path(__file__).parents[2].joinpath("src", "fairprefix", "gateway").glob("*.py")
    text = "".join(source.read_text() for source in sources)
    given = set(re.findall(r"GatewayError\(\s*[A-Z_]+,\s*\"([a-z_]+)\"", text))
    assert told == given - {"not_found", "gateway_failed"}
