"""A host's configuration comes from one place, and a wrong one is refused with one clear message."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairprefix.core.errors import ConfigError
from fairprefix.hosting import host_config, is_configured


def test_an_empty_environment_configures_nothing() -> None:
    """Installing the package changes no server."""
    assert not is_configured({})
    assert not is_configured({"FAIRPREFIX_CONFIG": " "})
    assert is_configured({"FAIRPREFIX_POLICY": "vtc"})


def test_hosts_default_to_the_credit_gate() -> None:
    """The bound of the credit gate does not depend on how the engine admits."""
    config = host_config(environ={}, reservation="none")
    assert (config.policy, config.gate, config.reservation) == ("dlpm", "credit", "none")
    assert host_config({"gate": "deficit"}, environ={}).gate == "deficit"


def test_settings_come_from_a_file_inline_text_or_a_table(tmp_path: Path) -> None:
    """All three say the same."""
    file = tmp_path / "fair.toml"
    file.write_text("quantum = 77\n")
    for environ in ({"FAIRPREFIX_CONFIG": str(file)}, {"FAIRPREFIX_CONFIG": '{"quantum": 77}'}):
        assert host_config(environ=environ).quantum == 77
    assert host_config({"quantum": 77}, environ={}).quantum == 77
    assert host_config(str(file), environ={"FAIRPREFIX_CONFIG": '{"quantum": 1}'}).quantum == 77


def test_the_policy_variable_wins_over_the_file() -> None:
    """FAIRPREFIX_POLICY changes the policy alone."""
    config = host_config(
        environ={"FAIRPREFIX_CONFIG": '{"policy": "lpm", "quantum": 9}', "FAIRPREFIX_POLICY": "vtc"}
    )
    assert (config.policy, config.quantum) == ("vtc", 9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"quantm": 1}', "unknown setting 'quantm' (did you mean 'quantum'?)"),
        ('{"quantum": 0}', "quantum = 0 is not valid: expected an integer >= 1"),
        ('{"quantum": ', "FAIRPREFIX_CONFIG: is not valid JSON"),
        ("/no/such/file.toml", "/no/such/file.toml: cannot be read"),
        ('{"reservation": "full"}', "this engine admits by 'none'"),
    ],
)
def test_a_wrong_configuration_is_one_clear_message(text: str, said: str) -> None:
    """It names the source, the field, the value and the fix."""
    with pytest.raises(ConfigError) as caught:
        host_config(environ={"FAIRPREFIX_CONFIG": text}, reservation="none")
    assert said in str(caught.value)


def test_an_unknown_policy_names_the_variable() -> None:
    """So that one knows where to look."""
    with pytest.raises(ConfigError, match=r"FAIRPREFIX_POLICY: policy = 'dplm'.*did you mean 'dlpm'"):
        host_config(environ={"FAIRPREFIX_POLICY": "dplm"})
