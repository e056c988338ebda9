"""Every snippet of the README and the documentation is run: here, or by the test that the table names.

What is not run stands in one table with its reason; both tables hold nothing that is no longer written anywhere.
"""

from __future__ import annotations

import ast
import gzip
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fairprefix.cli.main import make_parser
from fairprefix.configfile import load_config, read_settings
from fairprefix.core.config import PolicyConfig
from fairprefix.sim.trace import load_trace
from tests.docs.pages import code_of, executed
from tests.docs.snippets import ROOT, Snippet, snippets

ELSEWHERE = {
    ("README.md", "from fairprefix import"): "tests/docs/test_readme.py::test_every_snippet_runs",
    ("docs/integrate/dynamo.md", "python -m"): (
        "tests/dynamo/test_component.py::test_light_clients_wait_less_than_with_the_native_router"
    ),
    ("docs/integrate/gateway-exact-index.md", "[router]"): (
        "tests/docs/test_gateway_pages.py::test_the_settings_of_the_pages_are_valid"
    ),
    ("docs/integrate/gateway-redis.md", "quantum"): (
        "tests/docs/test_gateway_pages.py::test_the_settings_of_the_pages_are_valid"
    ),
    ("docs/integrate/gateway.md", "fairprefix gateway --worker"): (
        "tests/docs/test_gateway_docs.py::test_the_commands_of_the_page_work"
    ),
    ("docs/integrate/gateway.md", "curl"): "tests/docs/test_gateway_docs.py::test_the_commands_of_the_page_work",
    ("docs/integrate/gateway.md", "# gateway.toml"): (
        "tests/docs/test_gateway_docs.py::test_the_file_of_the_page_is_valid"
    ),
    ("docs/integrate/gateway.md", "# /etc"): "tests/docs/test_gateway_docs.py::test_the_recipes_start_a_gateway",
    ("docs/integrate/gateway.md", "FROM"): "tests/docs/test_gateway_docs.py::test_the_recipes_start_a_gateway",
    ("docs/integrate/ray.md", "serve run"): "tests/ray/test_app.py::test_openai_s_client_is_served_and_charged",
    ("docs/integrate/ray.md", "curl"): "tests/ray/test_app.py::test_openai_s_client_is_served_and_charged",
    ("docs/integrate/sglang.md", "policy ="): (
        "tests/docs/test_sglang_docs.py::test_the_configuration_of_the_page_is_valid"
    ),
    (
        "docs/integrate/sglang.md",
        "FAIRPREFIX_CONFIG",
    ): "tests/sglang/test_server.py::test_the_commands_of_the_page_work",
    ("docs/integrate/sglang.md", "curl"): "tests/sglang/test_server.py::test_the_commands_of_the_page_work",
    ("docs/integrate/vllm.md", "vllm serve"): (
        "tests/vllm/test_server.py::test_every_server_of_the_page_is_the_one_that_was_started"
    ),
    ("docs/integrate/vllm.md", "export"): (
        "tests/vllm/test_server.py::test_every_server_of_the_page_is_the_one_that_was_started"
    ),
    ("docs/integrate/vllm.md", "from vllm"): "tests/vllm/test_server.py::test_the_page_works_offline",
    (
        "docs/integrate/your-own-engine.md",
        "",
    ): "tests/docs/test_engine_page.py::test_the_page_shows_what_its_code_prints",
    ("docs/paper.md", "fairprefix bench --url"): "tests/paper/test_bench.py::test_a_real_server_serves_a_workload",
    ("docs/paper.md", "fairprefix calibrate"): (
        "tests/paper/test_calibrate.py::test_the_command_reports_errors_and_writes_a_model"
    ),
    (
        "docs/test-your-policy.md",
        "my_policy:",
    ): "tests/docs/test_policy_docs.py::test_the_example_keeps_its_claims",
    (
        "docs/test-your-policy.md",
        "from fairprefix",
    ): "tests/docs/test_policy_docs.py::test_the_broken_variant_is_caught",
    ("docs/test-your-policy.md", "broken = "): "tests/docs/test_policy_docs.py::test_the_broken_variant_is_caught",
    ("docs/test-your-policy.md", "own = "): "tests/docs/test_policy_docs.py::test_the_broken_variant_is_caught",
    ("docs/write-a-policy.md", "from fairprefix"): "tests/docs/test_policy_docs.py::test_the_example_runs",
}
"""(page, how the snippet begins): the test that runs it."""

NOT_RUN = {
    ("README.md", "@software"): "a citation",
    ("README.md", "pip install . &&"): "make test-bare installs it and simulates",
    ("README.md", "vllm serve"): "the command of docs/integrate/vllm.md, which runs",
    (
        "README.md",
        "FAIRPREFIX_POLICY=dlpm python",
    ): "that of docs/integrate/sglang.md, configured by a word instead of a file",
    ("docs/engine-model.md", "pip install torch"): "another index than the one that tests install from",
    ("docs/engine.md", "curl"): "tests/engine/test_server.py asks the same server in the same words",
    (
        "docs/integrate/gateway-exact-index.md",
        "vllm serve",
    ): "needs an engine; make test-vllm publishes the same events",
    ("docs/integrate/gateway-exact-index.md", "python -m sglang"): "needs an engine; the flags are SGLang's",
    ("docs/integrate/gateway.md", "flowchart"): "a drawing",
    (
        "docs/integrate/ray.md",
        "from ray",
    ): "a sketch with `...`; its settings are checked, make test-ray runs a whole one",
    ("docs/integrate/ray.md", "key ="): "a part of it",
    ("docs/integrate/ray.md", "applications:"): "needs Ray and an engine; tests/ray/test_llm.py builds the same",
    (
        "docs/integrate/ray.md",
        "from fairprefix.adapters.ray.lookup",
    ): "needs Ray; tests/ray/fleet.py calls it likewise",
    ("docs/integrate/vllm.md", "curl"): "needs vLLM; tests/vllm/test_server.py asks in the same words",
    ("docs/integrate/vllm.md", "fairprefix: policy"): "a line of the log; tests/vllm/test_server.py looks for it",
    ("docs/paper.md", "fairprefix paper"): "minutes to hours; tests/paper runs every figure at a small scale",
    ("docs/quickstart.md", "git clone"): "the network",
    ("docs/reproduction.md", "What the paper"): "printed by fairprefix paper: tests/paper/test_report.py",
    ("docs/simulate.md", "{"): "the shape of the JSON; tests/cli/test_simulate.py reads it",
    ("docs/test-your-policy.md", "broken_policy:"): "printed by the commands beside it, which run",
    ("docs/test-your-policy.md", "prefix_order"): "likewise",
    ("docs/test-your-policy.md", "..."): "likewise",
    ("docs/trace-format.md", "requests.jsonl:7"): "tests/sim/test_trace_errors.py has every such error",
}
"""(page, how the snippet begins): why it is not run, and what is instead."""

PARSED_ONLY = ("fairprefix serve", "fairprefix gateway", "fairprefix model get")
"""They go on until they are stopped, or download: here the options are read. tests/engine/test_serve.py serves."""

SHORTER = {
    "fairprefix verify my_": ("--examples", "3"),
    "fairprefix verify dlpm": ("--examples", "3"),
    "fairprefix simulate --workload": ("--programs", "2"),
    "fairprefix bench --engine": ("--programs", "1"),
    "fairprefix simulate --time-scale": ("--limit", "150"),
}
"""What is added to a command, so that it takes seconds; beside that it runs as it is written."""

FAILS = {"fairprefix verify broken_policy:make_broken": 1}
ALL = list(snippets())


def entry(snippet: Snippet, table: dict[tuple[str, str], str]) -> tuple[str, str] | None:
    """Return the key of a snippet's row, if it has one."""
    return next((key for key in table if key[0] == snippet.page and snippet.start.startswith(key[1])), None)


REST = [each for each in ALL if not entry(each, ELSEWHERE) and not entry(each, NOT_RUN)]
COMMANDS = [each for each in REST if each.language == "sh" and each.text.startswith("fairprefix ")]
OTHERS = [each for each in REST if each not in COMMANDS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the commands name: a trace of one's own, the policies of the pages, a log."""
    folder = tmp_path_factory.mktemp("shell")
    lines = [
        f'{{"arrival_s": {number / 8}, "client": "c{number % 3}", "input_tokens": 64, "output_tokens": 8}}\n'
        for number in range(60)
    ]
    (folder / "trace.jsonl").write_text("".join(lines), encoding="utf-8")
    with gzip.open(folder / "trace.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(lines)
    for name in ("my_policy.py", "my_module.py"):
        (folder / name).write_text(code_of("write-a-policy.md")[0], encoding="utf-8")
    (folder / "broken_policy.py").write_text(code_of("test-your-policy.md")[0], encoding="utf-8")
    model = '{"kv_tokens": 40000, "step_ms": 8, "token_us": 100, "context_ns": 10}'
    (folder / "mine.json").write_text(model, encoding="utf-8")
    return folder


@pytest.mark.parametrize("snippet", COMMANDS, ids=str)
def test_a_command_of_ours_does_what_the_page_says(snippet: Snippet, folder: Path) -> None:
    """It runs to its end, in a folder with the files that it names."""
    words = snippet.words[1:]
    if snippet.text.startswith(PARSED_ONLY):
        make_parser().parse_args(words)
        return
    words += next((added for start, added in SHORTER.items() if snippet.text.startswith(start)), ())
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "fairprefix", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    expected = next((code for start, code in FAILS.items() if snippet.text.startswith(start)), 0)
    assert done.returncode == expected, done.stderr


@pytest.mark.parametrize("snippet", OTHERS, ids=str)
def test_what_else_is_shown_is_so(snippet: Snippet, tmp_path: Path) -> None:
    """Targets, scripts, tests and extras exist; configurations and traces are read; Python runs."""
    if snippet.language == "sh":
        _command(snippet)
    elif '"verdicts"' in snippet.text:
        assert snippet.page == "docs/test-your-policy.md"  # whose own test knows what verify writes
    elif snippet.language in ("json", "csv"):
        suffix = {"json": "jsonl", "csv": "csv"}[snippet.language]
        (tmp_path / f"trace.{suffix}").write_text(snippet.text, encoding="utf-8")
        assert len(load_trace(tmp_path / f"trace.{suffix}").requests) == 1
    elif snippet.language == "toml":
        (tmp_path / "fair.toml").write_text(snippet.text, encoding="utf-8")
        assert isinstance(load_config(tmp_path / "fair.toml"), PolicyConfig)
    elif snippet.language == "python":
        assert executed(snippet.page.removeprefix("docs/"))
    else:
        pytest.fail(f"{snippet}: nothing runs this: name the test in ELSEWHERE, or the reason in NOT_RUN")


def _command(snippet: Snippet) -> None:
    """Check a command that is too large to be run beside other tests."""
    program, *words = snippet.words
    if program == "make":
        makefiles = [ROOT / "Makefile", *(ROOT / "make").glob("*.mk")]
        assert any(re.search(rf"^{words[0]}:", file.read_text(), re.MULTILINE) for file in makefiles), snippet
    elif program == "pip":
        extras = read_settings(ROOT / "pyproject.toml")["project"]["optional-dependencies"]
        asked = re.fullmatch(r"fairprefix(?:\[([\w,]+)\])?", words[1])
        assert asked, snippet
        assert set(filter(None, (asked[1] or "").split(","))) <= extras.keys()  # make test-packages installs them
    elif program in ("python", "pytest", ".venv-ray/bin/python"):
        for word in words:
            path, _, test = word.partition("::")
            assert not path.startswith(("tests", "benchmarks")) or (ROOT / path).exists(), snippet
            assert test in ("", *_functions(ROOT / path)), snippet
    else:
        pytest.fail(f"{snippet}: nothing runs this: name the test in ELSEWHERE, or the reason in NOT_RUN")


def _functions(file: Path) -> set[str]:
    if file.suffix != ".py":
        return set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_the_tests_that_are_named_exist(test: str) -> None:
    """A row that names a test names one that there is."""
    file, _, name = test.partition("::")
    assert name in _functions(ROOT / file)


def test_no_row_is_left_over() -> None:
    """Every row of both tables is about something that is still written."""
    used = {key for each in ALL for table in (ELSEWHERE, NOT_RUN) if (key := entry(each, table))}
    assert used == ELSEWHERE.keys() | NOT_RUN.keys()


def test_the_pages_are_taken_apart() -> None:
    """There is something to run, in each language that pages use."""
    assert len(COMMANDS) >= 20
    assert {"sh", "python", "toml", "json", "csv"} <= {each.language for each in ALL}
    assert shutil.which("sh")
