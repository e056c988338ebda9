"""A real model: SmolLM2-135M-Instruct from its GGUF file, against transformers' reading of the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import transformers

from fairprefix.gpu_ref_engine.load import load_model
from fairprefix.gpu_ref_engine.runner import ModelRunner
from fairprefix.gpu_ref_engine.tokenizer import Tokenizer
from tests.engine.steps import Running, generate, step

PROMPTS = {
    "english": "The capital of France is",
    "code": "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "numbers": "1 + 1 = 2, 12 + 30 = 42, 100 + 2024 =",
    "long": "Once upon a time there was a scheduler that was fair to everybody. " * 12,
}
TRICKY = [
    "Hello, world!",
    "  leading and   inner spaces\n\n\tand tabs ",
    "numbers 1234567890 and 3.14159, 2024-01-01",
    "\u00e9t\u00e9 na\u00efve \u4f60\u597d \U0001f469\u200d\U0001f680 \u0645\u0631\u062d\u0628\u0627",
    "<|im_start|>user\nIsn't it?<|im_end|>\n",
    "",
]


@pytest.fixture(scope="module")
def ours(smollm2: Path) -> tuple[ModelRunner, Tokenizer]:
    """Return our model in float32, and its tokenizer."""
    return load_model(str(smollm2), device="cpu", dtype="float32", kv_tokens=4096)


@pytest.fixture(scope="module")
def theirs(smollm2: Path) -> Any:  # noqa: ANN401
    """Return transformers' model in float32, from the same file."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32
    )
    return model.eval()


@pytest.fixture(scope="module")
def their_tokenizer(smollm2: Path) -> Any:  # noqa: ANN401
    """Return transformers' tokenizer, from the same file."""
    return transformers.AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)


@pytest.mark.parametrize("name", PROMPTS)
def test_logits_are_those_of_transformers(name: str, ours: tuple[ModelRunner, Tokenizer], theirs: Any) -> None:  # noqa: ANN401
    """After every token of a prompt, the logits are those of transformers to a relative error of 1e-4."""
    runner, tokenizer = ours
    tokens = tokenizer.encode(PROMPTS[name])
    with torch.inference_mode():
        expected = theirs(torch.tensor([tokens])).logits[0]
    sequence = Running(list(tokens), range(runner.pages // 2))
    batch = step(runner, [(sequence, len(tokens))])
    found = runner.logits(all_sampled(batch))
    assert len(found) == len(tokens)
    assert float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max()) < 1e-4


def all_sampled(batch: Any) -> Any:  # noqa: ANN401
    """Return the step with logits after each of its tokens."""
    return attrs.evolve(batch, sample_at=np.arange(len(batch.tokens)))


def test_it_answers(ours: tuple[ModelRunner, Tokenizer]) -> None:
    """Asked for the capital of France through its chat template, the model names it and stops."""
    runner, tokenizer = ours
    prompt = tokenizer.chat([{"role": "user", "content": "What is the capital of France?"}])
    output = generate(runner, [Running(list(prompt), range(20))], 8)[0]
    assert tokenizer.decode(output) == "The capital of France is Paris."
    assert output[-1] in tokenizer.eos


@pytest.mark.parametrize("text", TRICKY)
def test_tokens_are_those_of_transformers(
    text: str,
    ours: tuple[ModelRunner, Tokenizer],
    their_tokenizer: Any,  # noqa: ANN401
) -> None:
    """Text becomes the same tokens as with transformers, and comes back as it was (special tokens aside)."""
    tokenizer = ours[1]
    tokens = tokenizer.encode(text)
    assert tokens == their_tokenizer(text)["input_ids"]
    assert tokenizer.decode(tokens) == text.replace("<|im_start|>", "").replace("<|im_end|>", "")


def test_the_chat_template_is_that_of_transformers(
    ours: tuple[ModelRunner, Tokenizer],
    their_tokenizer: Any,  # noqa: ANN401
) -> None:
    """A conversation becomes the same tokens as with transformers."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "2 + 2?"},
    ]
    text = their_tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert ours[1].chat(messages) == their_tokenizer(text)["input_ids"]


def test_bfloat16_says_nearly_the_same(smollm2: Path, ours: tuple[ModelRunner, Tokenizer]) -> None:
    """In bfloat16 the likeliest next token is the same after nearly every token of a text."""
    runner, tokenizer = ours
    quick, _ = load_model(str(smollm2), device="cpu", dtype="bfloat16", kv_tokens=1024)
    tokens = tokenizer.encode(PROMPTS["english"] + PROMPTS["code"])
    found, expected = (
        one.logits(all_sampled(step(one, [(Running(list(tokens), range(20)), len(tokens))]))).argmax(1)
        for one in (quick, runner)
    )
    assert float((found == expected).float().mean()) > 0.9
