"""The forward pass against transformers, family by family, from the files that transformers writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from fairprefix.gpu_ref_engine.architecture import from_hugging_face
from fairprefix.gpu_ref_engine.errors import ModelError
from fairprefix.gpu_ref_engine.load import assemble
from fairprefix.gpu_ref_engine.runner import ModelRunner
from fairprefix.gpu_ref_engine.sources import read_json, safetensors_source
from tests.engine.steps import CPU, Running, generate, step

COMMON: dict[str, Any] = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"head_dim": 8}),
    "llama, tied, biases": ("Llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama, scaled": ("Llama", {"rope_parameters": LLAMA3}),
    "qwen2": (
        "Qwen2",
        {"use_sliding_window": False, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    ),
    "qwen3": ("Qwen3", {"head_dim": 24, "tie_word_embeddings": True}),
    "qwen3, biases": ("Qwen3", {"head_dim": 16, "attention_bias": True}),
}
TOKENS = [int(one) for one in np.random.default_rng(0).integers(0, 131, 100)]


def saved(folder: Path, family: str, extra: dict[str, Any], **how: Any) -> Any:  # noqa: ANN401
    """Return a random model of transformers, every parameter of it random, after saving it."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**COMMON | extra)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.copy_(torch.rand_like(parameter) + 0.5)
    model.save_pretrained(folder, **how)
    return model


def loaded(folder: Path) -> ModelRunner:
    """Return our model from the same files."""
    shape = from_hugging_face(read_json(folder / "config.json"))
    return assemble(shape, safetensors_source(folder), device=CPU, dtype=torch.float32, kv_tokens=512)


def logits(runner: ModelRunner, tokens: list[int]) -> torch.Tensor:
    """Return our logits after some tokens."""
    return runner.logits(step(runner, [(Running(list(tokens), range(16)), len(tokens))]))[0]


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    """For random weights of every family and variant, logits agree with transformers to 1e-4, short and long."""
    family, extra = CASES[case]
    theirs = saved(tmp_path, family, extra)
    ours = loaded(tmp_path)
    for length in (1, 7, 100):
        with torch.inference_mode():
            expected = theirs(torch.tensor([TOKENS[:length]])).logits[0, -1]
        found = logits(ours, TOKENS[:length])
        assert float((found - expected).norm() / expected.norm()) < 1e-4


def test_output_is_that_of_transformers(tmp_path: Path) -> None:
    """Greedy decoding of a batch gives, token by token, what transformers generates."""
    theirs = saved(tmp_path, *CASES["qwen3"])
    prompts = [TOKENS[at : at + 20] for at in range(0, 80, 20)]
    with torch.inference_mode():
        ids = torch.tensor(prompts)
        out = theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
    running = [Running(list(prompt), list(range(4 * at, 4 * at + 4))) for at, prompt in enumerate(prompts)]
    assert generate(loaded(tmp_path), running, 12) == out[:, 20:].tolist()


def test_a_sharded_directory_is_the_same_model(tmp_path: Path) -> None:
    """A model in several files with an index gives the same logits as in one."""
    saved(tmp_path / "one", *CASES["llama"])
    saved(tmp_path / "many", *CASES["llama"], max_shard_size="40KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    torch.testing.assert_close(logits(loaded(tmp_path / "many"), TOKENS), logits(loaded(tmp_path / "one"), TOKENS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["LlamaForCausalM"]}, "did you mean 'LlamaForCausalLM'"),
        ({"architectures": ["MixtralForCausalLM"]}, "MixtralForCausalLM is not supported"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported"),
        ({"use_sliding_window": True}, "sliding-window attention is not supported"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope type 'yarn' is not supported"),
        ({"num_key_value_heads": 4}, "6 query heads cannot share 4"),
        ({"head_dim": 7}, "an even number"),
        ({"hidden_size": 64, "head_dim": 8}, r"has shape \[131, 48\]: expected \[131, 64\]"),
    ],
)
def test_what_is_not_supported_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """A variant that the engine does not compute is refused with its name, never computed wrongly."""
    saved(tmp_path, *CASES["llama"])
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps({key: one for key, one in config.items() if one is not None}))
    with pytest.raises(ModelError, match=message):
        loaded(tmp_path)


def test_missing_files_and_tensors_are_named(tmp_path: Path) -> None:
    """What is missing from a directory, or damaged in it, is named together with its file."""
    saved(tmp_path, *CASES["llama"], max_shard_size="40KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    shards[-1].write_bytes(b"damaged")
    with pytest.raises(ModelError, match=rf"{shards[-1].name}: tensor '.*' cannot be read"):
        loaded(tmp_path)
    shards[-1].unlink()
    with pytest.raises(ModelError, match=rf"{shards[-1].name}: tensor '.*' cannot be read"):
        loaded(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {}}')
    with pytest.raises(ModelError, match=r"lists no tensor 'model\.embed_tokens\.weight'"):
        loaded(tmp_path)
    index.write_text("{")
    with pytest.raises(ModelError, match="is not valid JSON"):
        loaded(tmp_path)
    index.unlink()
    with pytest.raises(ModelError, match=r"has neither model\.safetensors nor"):
        loaded(tmp_path)
