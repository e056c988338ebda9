"""What the plugin does when SGLang loads it: nothing, hook everything, or stop the process with one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fairprefix.adapters.sglang import register, support
from fairprefix.adapters.sglang.decisionlog import DecisionLog, log_for
from fairprefix.adapters.sglang.engine import Ranks, SchedulerView
from fairprefix.adapters.sglang.hooks import fit
from fairprefix.adapters.sglang.identity import IdentityHooks
from fairprefix.adapters.sglang.metrics import Exporter
from fairprefix.core.config import PolicyConfig


class Registry:
    """Stands in for SGLang's registry of hooks."""

    def __init__(self) -> None:
        self.hooked: dict[str, str] = {}

    def register(self, target: str, _hook: object, kind: str) -> None:
        """Note a hook."""
        self.hooked[target] = kind


@pytest.fixture
def sglang(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Make an SGLang 0.5.23 that consists of nothing but the targets."""
    registry = Registry()
    for target, parameters in support.TARGETS.items():
        module_path, class_name, name = target.rsplit(".", 2)
        module = sys.modules.get(module_path) or ModuleType(module_path)
        monkeypatch.setitem(sys.modules, module_path, module)
        owner = getattr(module, class_name, None) or type(class_name, (), {})
        setattr(module, class_name, owner)
        setattr(owner, name, _function(parameters))
    for parent in ("sglang", "sglang.srt", "sglang.srt.managers", "sglang.srt.entrypoints"):
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    monkeypatch.setitem(sys.modules, "sglang.srt.entrypoints.openai", ModuleType("openai"))
    monkeypatch.setitem(sys.modules, "sglang.srt.mem_cache", ModuleType("mem_cache"))
    for path in support.NAMES:
        module_path, _, name = path.rpartition(".")
        module = sys.modules.get(module_path) or ModuleType(module_path)
        monkeypatch.setitem(sys.modules, module_path, module)
        setattr(module, name, 4096 if name.isupper() else type(name, (), {}))
    plugins = ModuleType(support.PLUGINS)
    plugins.HookRegistry = registry  # type: ignore[attr-defined]
    plugins.HookType = SimpleNamespace(AFTER="after", BEFORE="before", AROUND="around")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, support.PLUGINS, plugins)
    monkeypatch.setattr(support, "version", lambda _name: "0.5.23")
    monkeypatch.setenv("FAIRPREFIX_POLICY", "dlpm")
    monkeypatch.delenv("FAIRPREFIX_CONFIG", raising=False)
    return registry


def _function(parameters: tuple[str, ...]) -> Callable[..., None]:
    scope: dict[str, Any] = {}
    exec(f"def made({', '.join(parameters)}, *rest): pass", scope)  # noqa: S102 (a signature of given names)
    made: Callable[..., None] = scope["made"]
    return made


def _refusal() -> str:
    with pytest.raises(SystemExit) as stopped:
        register()
    message = str(stopped.value)
    assert message.startswith("fairprefix: ")
    assert "\n" not in message
    return message


def test_without_configuration_nothing_is_imported_or_hooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed but not configured, the plugin does not even look for SGLang."""
    monkeypatch.delenv("FAIRPREFIX_POLICY", raising=False)
    monkeypatch.delenv("FAIRPREFIX_CONFIG", raising=False)
    monkeypatch.setattr(support, "version", None)
    register()


def test_every_target_is_hooked(sglang: Registry) -> None:
    """All that is validated is hooked, the order around SGLang's own."""
    register()
    assert set(sglang.hooked) == set(support.TARGETS)
    assert sglang.hooked[support.ORDER] == "around"


@pytest.mark.parametrize("version", ["0.5.10", "0.5.10.post2", "0.5.24", "0.6.0", "1.0", "0.4.9", "unknown"])
def test_an_unsupported_version_stops_the_process(
    sglang: Registry, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """Older and newer versions are refused by name, with the range that is supported."""
    monkeypatch.setattr(support, "version", lambda _name: version)
    message = _refusal()
    assert version in message
    assert "0.5.11 to 0.5.23" in message
    assert not sglang.hooked


@pytest.mark.parametrize("version", ["0.5.11", "0.5.20.post1", "0.5.23"])
def test_supported_versions_are_accepted(sglang: Registry, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Everything from the oldest to the newest supported version, post-releases included."""
    monkeypatch.setattr(support, "version", lambda _name: version)
    register()
    assert sglang.hooked


def test_a_missing_target_stops_the_process(sglang: Registry) -> None:
    """A method that this SGLang does not have is named."""
    owner = sys.modules["sglang.srt.managers.scheduler"].Scheduler
    delattr(owner, "process_batch_result")
    assert "Scheduler.process_batch_result" in _refusal()
    assert not sglang.hooked


def test_a_missing_name_stops_the_process(sglang: Registry) -> None:
    """Something that this SGLang no longer has under its name is named."""
    delattr(sys.modules[support.SCHEDULE_POLICY], "CLIP_MAX_NEW_TOKENS")
    assert "schedule_policy.CLIP_MAX_NEW_TOKENS" in _refusal()
    assert not sglang.hooked


def test_a_target_with_other_parameters_stops_the_process(sglang: Registry) -> None:
    """A method that takes something else than expected is named, with both."""
    owner = sys.modules["sglang.srt.managers.schedule_policy"].SchedulePolicy
    owner.calc_priority = _function(("self", "queues"))
    message = _refusal()
    assert "calc_priority" in message
    assert "waiting_queue" in message
    assert not sglang.hooked


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ('{"quantum": 0}', "quantum = 0"),
        ('{"quantun": 5}', "did you mean 'quantum'"),
        ("/nowhere/fair.toml", "cannot be read"),
        ('{"reservation": "full"}', "reservation"),
        ("{", "JSON"),
    ],
)
def test_a_wrong_configuration_stops_the_process(
    sglang: Registry, monkeypatch: pytest.MonkeyPatch, settings: str, named: str
) -> None:
    """Every kind of mistake in the configuration is one line that names it."""
    monkeypatch.setenv("FAIRPREFIX_CONFIG", settings)
    assert named in _refusal()
    assert not sglang.hooked


def _scheduler(**settings: Any) -> Any:
    plain = {
        "disaggregation_mode": SimpleNamespace(value="null"),
        "server_args": SimpleNamespace(pp_size=1, enable_metrics=False),
        "dllm_config": None,
        "tree_cache": SimpleNamespace(disable=True),
        "max_total_num_tokens": 1000,
        "max_running_requests": 4,
        "max_req_input_len": 500,
        "max_req_len": 600,
    }
    return SimpleNamespace(**{**plain, **settings})


def _view(sglang: Registry, **settings: Any) -> SchedulerView:  # noqa: ARG001 (its modules are needed)
    return SchedulerView(_scheduler(**settings), Ranks(0, 0, 0))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"disaggregation_mode": SimpleNamespace(value="prefill")}, "--disaggregation-mode prefill"),
        ({"server_args": SimpleNamespace(pp_size=2)}, "--pp-size"),
        ({"dllm_config": object()}, "diffusion"),
    ],
)
def test_what_cannot_be_charged_exactly_is_refused(sglang: Registry, settings: dict[str, Any], named: str) -> None:
    """Set-ups in which requests take other paths stop the scheduler, and are named."""
    with pytest.raises(SystemExit, match=named):
        _view(sglang, **settings).check()


@pytest.mark.parametrize(
    ("settings", "room"),
    [
        ({}, 3),
        ({"chunked_req": object()}, 5),
        ({"server_args": SimpleNamespace(enable_streaming_session=True)}, 5),
        ({"enable_priority_preemption": True}, 8),
        ({"get_num_allocatable_reqs": lambda _running: -2}, 0),
    ],
)
def test_no_more_are_planned_than_sglang_has_room_for(
    sglang: Registry, settings: dict[str, Any], room: int
) -> None:
    """The free rows, and some more where SGLang may admit without one: a chunk, a lent row, a preemption."""
    plain = {
        "get_num_allocatable_reqs": lambda running: 4 - running,
        "chunked_req": None,
        "enable_priority_preemption": False,
    }
    view = _view(sglang, **plain | settings)
    assert view.room(SimpleNamespace(reqs=[object()])) == room


def test_the_default_slack_lets_one_client_fill_the_engine(sglang: Registry) -> None:
    """It becomes what a full batch may still produce, unless it is configured, or larger already."""
    view = _view(sglang, max_running_requests=256, max_req_len=32_768)
    assert fit(PolicyConfig(gate="credit"), view).slack == 2 * 256 * 4096
    assert fit(PolicyConfig(gate="credit", slack=1000), view).slack == 1000
    assert fit(PolicyConfig(gate="deficit"), view).slack == PolicyConfig().slack


def _request(**fields: Any) -> Any:
    return SimpleNamespace(**{"routing_key": None, "lora_path": None, "session_id": None, **fields})


def _http(**headers: str) -> Any:
    return SimpleNamespace(headers={name.replace("_", "-"): value for name, value in headers.items()})


MANAGER = SimpleNamespace(server_args=SimpleNamespace(api_key=None))


def test_the_openai_field_user_reaches_the_routing_key() -> None:
    """`body:user` is read where the body still has it, and carried along."""
    hooks = IdentityHooks(("client_id", "body:user"))
    internal = _request()
    hooks.converted((internal, None), None, SimpleNamespace(user="bob"), None)
    hooks.generating(MANAGER, internal, _http())
    assert internal.routing_key == "bob"


def test_sources_decide_in_their_order_wherever_they_are_read() -> None:
    """A header that is configured before the body's field wins, although the body is read first."""
    hooks = IdentityHooks(("header:x-team", "body:metadata.team", "client_id"))
    internal = _request(routing_key="native")
    hooks.converted((internal, None), None, SimpleNamespace(metadata={"team": "body"}), None)
    hooks.generating(MANAGER, internal, _http(x_team="header"))
    assert internal.routing_key == "header"


def test_only_configured_sources_are_trusted() -> None:
    """A routing key that a client has sent counts for nothing where `client_id` is no source."""
    hooks = IdentityHooks(("header:x-team",))
    internal = _request(routing_key="forged")
    hooks.generating(MANAGER, internal, _http(x_smg_routing_key="forged"))
    assert internal.routing_key is None


def test_an_api_key_counts_only_where_sglang_checks_it() -> None:
    """A bearer token is taken for an identity only if the server was given a key to compare it with."""
    hooks = IdentityHooks(("api_key",))
    unchecked, checked = _request(), _request()
    hooks.generating(MANAGER, unchecked, _http(authorization="Bearer secret"))
    manager = SimpleNamespace(server_args=SimpleNamespace(api_key="secret"))
    hooks.generating(manager, checked, _http(authorization="Bearer secret"))
    assert unchecked.routing_key is None
    assert checked.routing_key.startswith("key:")
    assert "secret" not in checked.routing_key


def test_the_parts_of_a_request_keep_its_client() -> None:
    """A list of prompts, and n > 1, are split into requests of the same client."""
    part = _request()
    IdentityHooks(("client_id",)).split(part, _request(routing_key="A"), 0)
    assert part.routing_key == "A"


def test_figures_are_written_once_a_second_and_at_the_end() -> None:
    """While busy once a second; when nothing is left to do at once, and then not again."""
    now, written = [10**12], list[int]()
    exporter = Exporter(SimpleNamespace(update=lambda: written.append(now[0])), lambda: now[0])
    for _ in range(50):
        now[0] += 10**8
        exporter.changed()
    assert 5 <= len(written) <= 6
    before = len(written)
    for _ in range(50):
        now[0] += 10**8
        exporter.idle()
    assert len(written) == before + (written[-1] > 10**12 + 50 * 10**8)


def test_the_last_figures_are_written_however_long_that_takes() -> None:
    """Figures that take 50 ms are written every 5 seconds, while idle too, but the last ones are not missing."""
    now, written = [10**12], list[int]()

    def slow() -> None:
        now[0] += 50_000_000
        written.append(now[0])

    exporter = Exporter(SimpleNamespace(update=slow), lambda: now[0])
    for step in range(1000):
        now[0] += 10**8
        exporter.idle() if step % 2 else exporter.changed()
    assert len(written) <= 1000 / 50 + 1
    last = now[0]
    exporter.changed()
    for _ in range(100):
        now[0] += 10**8
        exporter.idle()
    assert written[-1] > last


def test_a_decision_log_is_written_only_if_wanted(tmp_path: Any) -> None:
    """With the variable set, each rank writes a file of its own, line by line."""
    assert log_for({}, Ranks(0, 0, 0)) is None
    log = log_for({"FAIRPREFIX_DECISION_LOG": str(tmp_path / "log")}, Ranks(1, 2, 0))
    assert isinstance(log, DecisionLog)
    log({"event": "plan", "ids": ["a"]})
    assert (tmp_path / "log" / "dp2-tp1.jsonl").read_text() == '{"event":"plan","ids":["a"]}\n'
    log.close()
