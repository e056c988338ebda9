"""A real server with a tiny model, started as the documentation shows it, and real clients."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.vllm import load
from tests.vllm.server import PAGE, Server, free_port, page_blocks
from tests.vllm.tiny import make_model

SHELL = page_blocks()
TOML = page_blocks("toml")[0].replace("quantum = 2048", "quantum = 200")
"""The page's configuration, with a quantum for small requests: about what one of them costs."""
STOCK = "exec vllm serve $MODEL"
RUNS = 3


@pytest.fixture(scope="module")
def model() -> Path:
    """A tiny model, with so many layers that the engine is slower than the server's front: or no queue forms."""
    return make_model(Path(sys.prefix) / "tall-llama", layers=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's configuration."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "fair.toml").write_text(TOML, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def servers(model: Path, folder: Path) -> Iterator[tuple[Server, Server]]:
    """VLLM as it is, and with the page's flags, configuration and metrics."""
    fair_command = next(block for block in SHELL if "PROMETHEUS_MULTIPROC_DIR" in block)
    with (
        Server(fair_command, model, {"FAIRPREFIX_CONFIG": "fair.toml"}, folder) as fair,
        Server(STOCK, model) as stock,
    ):
        yield stock.ready(), fair.ready()


@pytest.fixture
def fair(servers: tuple[Server, Server]) -> Iterator[Server]:
    """The fair server, which must be idle and free of errors after every test."""
    yield servers[1]
    servers[1].idle()
    assert servers[1].total("fairprefix_policy_errors_total") == 0
    assert servers[1].total("fairprefix_index_corrections_total") == 0
    assert servers[1].total("fairprefix_stalls_total") == 0


def complete(server: Server, headers: dict[str, str] | None = None, **body: object) -> httpx.Response:
    """Send one request."""
    wanted = {"model": "tiny", "prompt": "Once upon a time", "max_tokens": 4, **body}
    return httpx.post(f"{server.url}/v1/completions", json=wanted, headers=headers or {}, timeout=60)


def test_a_light_client_is_served_sooner(servers: tuple[Server, Server], fair: Server) -> None:
    """Beside a flood, a light client waits less than a third as long; hits and throughput stay."""
    stock = servers[0]
    pairs = []
    for run in range(RUNS):
        results = []
        for server in (stock, fair) if run % 2 else (fair, stock):
            before = server.total("vllm:iteration_tokens_total_count")
            result = asyncio.run(load.flood_and_light(server.url, f"Run {run}."))
            result.steps = int(server.total("vllm:iteration_tokens_total_count") - before)
            results.append(result)
        pairs.append(tuple(results) if run % 2 else tuple(reversed(results)))
    for plain, ours in pairs:
        print(  # noqa: T201 (shown when it fails, and by pytest -s)
            f"light TTFT {plain.light_ttft:.3f} s and {ours.light_ttft:.3f} s, hit rate {plain.hit_rate:.3f} "
            f"and {ours.hit_rate:.3f}, tokens/s {plain.tokens / plain.seconds:.0f} and "
            f"{ours.tokens / ours.seconds:.0f}, steps {plain.steps} and {ours.steps}"
        )
    assert statistics.median(plain.light_ttft / ours.light_ttft for plain, ours in pairs) >= 3
    assert statistics.median(ours.hit_rate - plain.hit_rate for plain, ours in pairs) >= -0.01
    # By the clock, throughput is noise on a busy machine: steps are counted here; benchmarks/vllm_step times them.
    speeds = [(ours.tokens / ours.steps) / (plain.tokens / plain.steps) for plain, ours in pairs]
    assert statistics.median(speeds) >= 0.95


def test_each_client_is_charged_for_what_was_computed_for_it(fair: Server) -> None:
    """Service in /metrics = prompt - cached + 2 x output, as the answers' usage has it; n and lists included."""
    name = "charged"
    units = requests = 0
    for body in (
        {"prompt": "A quite long prompt, " * 20},
        {"prompt": "A quite long prompt, " * 20, "n": 3, "temperature": 1.0},
        {"prompt": ["First of a list", "Second of a list", "A quite long prompt, " * 20]},
    ):
        answer = complete(fair, {"X-Tenant-ID": name}, max_tokens=7, ignore_eos=True, **body).json()
        units += 2 * answer["usage"]["completion_tokens"]
        requests += len(answer["choices"])
    fair.idle()
    label = f'fairness_id="{name}"'
    prompt = fair.total("fairprefix_request_input_tokens_total", label)
    cached = fair.total("fairprefix_request_cached_tokens_total", label)
    assert fair.total("fairprefix_request_total", label) == requests == 7
    assert fair.total("fairprefix_attained_service_tokens", label) == prompt - cached + units
    assert cached > 0


def test_a_client_cannot_pass_for_another(fair: Server) -> None:
    """What a client writes into our field, or into the request's id, does not count."""
    before = fair.total("fairprefix_request_total", 'fairness_id="victim"')
    spoof = {"vllm_xargs": {"fairprefix_client": "victim"}}
    assert complete(fair, {"X-Tenant-ID": "thief"}, **spoof).is_success
    assert complete(fair, {}, **spoof).is_success
    assert complete(fair, {"X-Request-Id": "fpc.dmljdGlt.1"}).is_success
    assert complete(fair, request_id="fpc.dmljdGlt.2").is_success
    fair.idle()
    assert fair.total("fairprefix_request_total", 'fairness_id="victim"') == before
    assert fair.total("fairprefix_request_total", 'fairness_id="thief"') == 1


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"X-Tenant-ID": "x" * 5000}, {}),
        ({"X-Tenant-ID": "\u00ff\u00fe nobody"}, {}),
        ({"X-Tenant-ID": ""}, {}),
        ({"Authorization": "Bearer"}, {}),
        ({}, {"vllm_xargs": ["not", "a", "table"]}),
        ({}, {"vllm_xargs": {"fairprefix_client": {"deep": "down"}}}),
        ({}, {"vllm_xargs": {"fairprefix_client": [1, 2]}}),
        ({}, {"vllm_xargs": None}),
    ],
)
def test_malformed_identities_do_no_harm(fair: Server, headers: dict[str, str], body: dict[str, object]) -> None:
    """The request is served, or refused as wrong by vLLM; the server goes on."""
    raw = {name.encode("latin-1"): value.encode("latin-1") for name, value in headers.items()}
    answer = httpx.post(
        f"{fair.url}/v1/completions",
        json={"model": "tiny", "prompt": "Hello", "max_tokens": 2, **body},
        headers=raw,
        timeout=60,
    )
    assert answer.status_code in (200, 400, 422)
    assert complete(fair).is_success


def test_a_body_that_is_no_json_is_refused_by_vllm(fair: Server) -> None:
    """The middleware leaves it alone."""
    answer = httpx.post(
        f"{fair.url}/v1/completions", content=b"{nonsense", headers={"Content-Type": "application/json"}
    )
    assert 400 <= answer.status_code < 500


def test_disconnects_leave_nothing_behind(fair: Server) -> None:
    """Clients that go away while they wait or read leave no request behind, in vLLM or with us."""

    async def leave() -> None:
        async with load.client(fair.url, "leaver") as server:
            tasks = [asyncio.create_task(load.ask(server, f"Leaving {n}", 900)) for n in range(24)]
            await asyncio.sleep(1.5)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(leave())
    fair.idle()
    assert fair.total("fairprefix_request_total", 'fairness_id="leaver"') == 24


def test_a_killed_client_leaves_nothing_behind(fair: Server) -> None:
    """A client that is killed in the middle of its streams leaves nothing behind."""
    command = [sys.executable, "-m", "tests.vllm.load", "hang", fair.url, "12"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, env=os.environ) as victim:  # noqa: S603
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"reading\n"
        victim.kill()
    fair.idle()
    assert fair.total("fairprefix_request_total", 'fairness_id="killed"') > 4


def test_every_endpoint_carries_the_name(fair: Server) -> None:
    """Chat, completions, responses and messages are charged to whoever the gateway names."""
    said = [{"role": "user", "content": "Hello"}]
    for path, body in (
        ("/v1/chat/completions", {"messages": said, "max_tokens": 2}),
        ("/v1/completions", {"prompt": "Hello", "max_tokens": 2}),
        ("/v1/responses", {"input": "Hello", "max_output_tokens": 2}),
        ("/v1/messages", {"messages": said, "max_tokens": 2}),
    ):
        name = f"via {path}"
        answer = httpx.post(
            f"{fair.url}{path}", json={"model": "tiny", **body}, headers={"X-Tenant-ID": name}, timeout=60
        )
        assert answer.is_success, (path, answer.text)
        fair.idle()
        assert fair.total("fairprefix_request_total", f'fairness_id="{name}"') == 1, path


def test_grammars_are_waited_for(fair: Server) -> None:
    """A request whose grammar is compiled first is served, also beside others."""
    answer = complete(fair, {"X-Tenant-ID": "strict"}, structured_outputs={"choice": ["yes", "no"]}, max_tokens=8)
    assert answer.is_success, answer.text
    assert answer.json()["choices"][0]["text"] in ("yes", "no")


def test_the_page_tells_the_truth(fair: Server) -> None:
    """The page's requests work, its metrics exist, and the server says at its start what it does."""
    requests = [block for block in SHELL if "curl" in block]
    assert len(requests) == 2
    for block in requests:
        command = block.replace("localhost:8000", f"127.0.0.1:{fair.port}")
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)  # noqa: S603, S607
        assert done.stdout.strip(), command
    shown = fair.metrics("fairprefix_")
    page = PAGE.read_text(encoding="utf-8")
    named = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `fairprefix_")]
    assert named
    for metric in named:
        name, _, label = metric.rstrip("}").partition("{")
        assert any(key.startswith(name) and label in key and 'engine="0"' in key for key in shown), metric
    assert all(value <= 1 for key, value in shown.items() if key.startswith("fairprefix_bound_ratio"))
    assert "fairprefix: policy dlpm, quantum 200, gate credit, cached prefixes by IndexedPrefixes" in fair.log()
    assert fair.total("fairprefix_request_total", 'fairness_id="alice"') >= 1


def test_every_server_of_the_page_is_the_one_that_was_started() -> None:
    """All its `vllm serve` are the same command; the tests start one of them, with the page's configuration.

    The one with several ranks is started in `test_ranks`.
    """
    commands = [block[block.index("vllm serve") :] for block in SHELL if "vllm serve" in block]
    assert len({command for command in commands if "--data-parallel-size" not in command}) == 1
    assert sum("--data-parallel-size" in command for command in commands) == 1
    rest = [block for block in SHELL if "vllm serve" not in block and "curl" not in block]
    assert rest == ["pip install fairprefix\n"]
    assert [block.splitlines()[0] for block in SHELL if block.startswith("export")] == [
        "export FAIRPREFIX_CONFIG=fair.toml",
        "export PROMETHEUS_MULTIPROC_DIR=$(mktemp -d)",
        "export FAIRPREFIX_RANK_ROUTER=d2lpm",
    ]


def test_the_page_works_offline(model: Path, tmp_path: Path) -> None:
    """Its example in Python runs as it stands, and charges the client that it names."""
    [example] = page_blocks("python")
    on_a_cpu = "enforce_eager=True, block_size=32, max_model_len=512, kv_cache_memory_bytes=1 << 24"
    script = tmp_path / "offline.py"
    script.write_text(
        f"MODEL = {str(model)!r}\n"
        + example.replace("model=MODEL,", f"model=MODEL, {on_a_cpu},")
        + "scheduler = llm.llm_engine.engine_core.engine_core.scheduler\n"
        + "assert scheduler.fairprefix.policy.figures.service()['alice'] > 8, scheduler.fairprefix.samples()\n",
        encoding="utf-8",
    )
    environ = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environ, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr[-2000:]


ADDITIONAL = """--additional-config '{"fairprefix": {"quantum": 4096}}'"""
FLAGS = "--middleware fairprefix.adapters.vllm.ClientIdMiddleware --scheduler-cls"


@pytest.fixture(scope="module")
def doomed(model: Path) -> Iterator[tuple[Server, Server, int]]:
    """A server whose policy fails, another one with a wrong setting, and the port of the first one's figures."""
    port = free_port()
    with (
        Server(
            f"exec vllm serve $MODEL {FLAGS} tests.vllm.broken.FailingScheduler {ADDITIONAL}",
            model,
            {"FAIRPREFIX_METRICS_PORT": str(port)},
        ) as failing,
        Server(
            f"exec vllm serve $MODEL {FLAGS} fairprefix.adapters.vllm.FairScheduler",
            model,
            {"FAIRPREFIX_CONFIG": '{"quantumm": 5}'},
        ) as misconfigured,
    ):
        yield failing, misconfigured, port


def test_a_wrong_setting_stops_the_server_with_one_line(doomed: tuple[Server, Server, int]) -> None:
    """The line names the setting and the one that was meant; no traceback of ours comes with it."""
    server = doomed[1]
    assert server.process.wait(400) != 0
    log = server.log()
    line = "fairprefix: FAIRPREFIX_CONFIG: unknown setting 'quantumm' (did you mean 'quantum'?)"
    assert log.count(line) == 1, log[-4000:]
    assert "fairprefix/adapters" not in log
    assert "ConfigError" not in log


def test_a_policy_that_fails_does_no_harm(doomed: tuple[Server, Server, int]) -> None:
    """Arrival order takes over, every request is served, the log has the reason once, a metric goes up."""
    server, _, port = doomed
    server.ready()
    assert f"`{ADDITIONAL}`" in PAGE.read_text(encoding="utf-8")
    assert "fairprefix: policy dlpm, quantum 4096, gate credit" in server.log()
    result = asyncio.run(load.flood_and_light(server.url, "Failing.", requests=30, light=3, tokens=8))
    assert all(answer.tokens == 8 for answer in [*result.flood, *result.light])
    assert server.log().count("RuntimeError: this policy fails on purpose") <= 2
    assert server.log().count("fairprefix: the policy failed, arrival order takes over") == 1
    own = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    assert 'fairprefix_policy_errors_total{engine="0"} 1.0' in own
    assert "fairprefix_policy_errors_total" not in server.metrics("fairprefix_")
