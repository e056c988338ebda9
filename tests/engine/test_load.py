"""From a name to a model that runs, or to one sentence that says why not."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import pytest
import torch

from fairprefix.core.errors import ConfigError, FairprefixError
from fairprefix.gpu_ref_engine.errors import MissingExtraError, ModelError, need
from fairprefix.gpu_ref_engine.load import find_model, load_model
from fairprefix.gpu_ref_engine.products import Product
from tests.engine.steps import CPU, Running, generate


def test_a_random_model_is_always_there() -> None:
    """`random` has 3 million parameters, speaks bytes, and is the same model for the same seed."""
    outputs = []
    for seed in (0, 0, 1):
        runner, tokenizer = load_model("random", device="cpu", dtype="float32", kv_tokens=256, seed=seed)
        outputs.append(generate(runner, [Running(tokenizer.encode("Hello"), range(4))], 16))
    assert outputs[0] == outputs[1] != outputs[2]
    weights = runner.model.weights
    layers = [tensor for layer in weights.layers for tensor in vars_of(layer)]
    assert 2.5e6 < sum(tensor.numel() for tensor in [weights.embedding, weights.norm, *layers]) < 3.5e6
    assert find_model("random", device=CPU).random


def vars_of(layer: object) -> list[torch.Tensor]:
    """Return the tensors of a layer."""
    parts = [one for one in attrs.astuple(layer, recurse=False) if one is not None]  # type: ignore[arg-type]
    return [one.matrix if isinstance(one, Product) else one for one in parts]


def test_the_longest_sequence_fits_the_memory() -> None:
    """A runner takes sequences as long as model and memory allow, whichever is less, in whole pages."""
    assert load_model("random", device="cpu", kv_tokens=100, page_size=16)[0].longest == 112
    runner, _ = load_model("random", device="cpu", kv_tokens=8000, page_size=16)
    assert (runner.longest, runner.pages, runner.vocabulary) == (4096, 500, 320)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "smollm3"},
            r"no model 'smollm3' \(did you mean 'smollm2'\?\): expected random, smollm2, a GGUF",
        ),
        ({"name": "random:lama-3.2-1b"}, "did you mean 'llama-3.2-1b'"),
        ({"device": "gpu"}, "device = 'gpu' is not valid"),
        ({"dtype": "int8"}, "dtype = 'int8' is not valid: expected one of auto, float32"),
        ({"backend": "flash"}, "did you mean 'flashinfer'"),
        ({"page_size": 0}, "page_size = 0 is not valid"),
        ({"kv_tokens": 7}, "kv_tokens = 7 is not valid"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    """A bad argument is named with its value and what would be right."""
    given: dict[str, object] = {"name": "random", "device": "cpu"} | arguments
    with pytest.raises(FairprefixError, match=message):
        load_model(**given)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_said() -> None:
    """Asking for a GPU where there is none says so; `auto` takes the CPU."""
    with pytest.raises(ConfigError, match="torch finds no CUDA device here"):
        load_model("random", device="cuda")
    assert load_model("random", kv_tokens=64)[0].device.type == "cpu"


def test_a_model_that_was_not_fetched_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A known model that is not in the cache names the command that fetches it."""
    monkeypatch.setenv("FAIRPREFIX_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="is not here yet: fairprefix model get smollm2"):
        load_model("smollm2", device="cpu")


def test_an_extra_that_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is not installed is named with the command that installs it."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"^tokenizers is missing .*: pip install 'fairprefix\[engine\]'$"):
        need("tokenizers", "engine")
