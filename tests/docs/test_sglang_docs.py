"""docs/integrate/sglang.md: its configuration is valid; its commands run in tests/sglang/test_server.py."""

from __future__ import annotations

import re
from pathlib import Path

from fairprefix.adapters.sglang.support import NEWEST, OLDEST
from fairprefix.configfile import load_config

PAGE = Path(__file__).parents[2] / "docs" / "integrate" / "sglang.md"


def test_the_configuration_of_the_page_is_valid(tmp_path: Path) -> None:
    """The file that the page shows is read without a complaint."""
    found = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    file = tmp_path / "fair.toml"
    file.write_text(found[1])
    config = load_config(file)
    assert config.policy == "dlpm"
    assert config.weight("gold") == 2


def test_the_page_names_the_versions_that_the_adapter_accepts() -> None:
    """The range on the page is the range in the code."""
    oldest, newest = (".".join(map(str, version)) for version in (OLDEST, NEWEST))
    assert f"SGLang {oldest} to {newest}" in PAGE.read_text()
