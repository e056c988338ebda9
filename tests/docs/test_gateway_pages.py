"""The pages on the exact index and on several gateways: what they show is valid, and what they say is so."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from fairprefix.cli.main import main
from fairprefix.configfile import read_settings
from fairprefix.gateway.config import GatewayConfig, Settings, WorkerConfig, make_settings
from fairprefix.gateway.kv_events.feed import FeedFigures

FOLDER = Path(__file__).parents[2] / "docs" / "integrate"
EXACT = (FOLDER / "gateway-exact-index.md").read_text(encoding="utf-8")
SEVERAL = (FOLDER / "gateway-redis.md").read_text(encoding="utf-8")


def settings(page: str, folder: Path) -> Settings:
    """Return the settings that a page shows."""
    found = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert found
    file = folder / "gateway.toml"
    certificates = folder / "ca.pem"
    certificates.touch()
    file.write_text(found[1].replace("/etc/ssl/redis-ca.pem", str(certificates)))
    return make_settings(read_settings(file), str(file))


def test_the_settings_of_the_pages_are_valid(tmp_path: Path) -> None:
    """Both are read without a complaint, and say what the text says."""
    exact = settings(EXACT, tmp_path)
    assert exact.router.index == "exact"
    assert all(worker.kv_events and worker.kv_replay for worker in exact.workers)
    several = settings(SEVERAL, tmp_path)
    assert several.redis
    assert (several.redis.interval_ms, several.gateway.state) == (50, "redis:gateway-a")


def test_figures_and_settings_that_the_page_names_exist() -> None:
    """Whoever looks for them finds them."""
    for name in ("gaps", "replayed", "resets", "restarts", "malformed", "unknown"):
        assert hasattr(FeedFigures(), name)
        assert f"`{name}`" in EXACT
    assert WorkerConfig(url="http://a:1").kv_block_limit == 1_000_000
    assert "`kv_block_limit` (a million" in EXACT
    assert GatewayConfig().admin_port == 8081
    assert "http://127.0.0.1:8081/ui" in SEVERAL


@pytest.mark.parametrize(
    ("library", "extra", "tables"),
    [
        (
            "zmq",
            "events",
            {"router": {"index": "exact"}, "workers": [{"url": "http://a:1", "kv_events": "tcp://a:5"}]},
        ),
        ("redis", "redis", {"redis": {"url": "redis://a:1"}, "workers": [{"url": "http://a:1"}]}),
    ],
)
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    library: str,
    extra: str,
    tables: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line, no traceback."""
    monkeypatch.setitem(sys.modules, library, None)
    file = tmp_path / "gateway.json"
    file.write_text(json.dumps(tables))
    assert main(["gateway", "--config", str(file)]) == 2
    assert f"pip install 'fairprefix[{extra}]'" in capsys.readouterr().err
