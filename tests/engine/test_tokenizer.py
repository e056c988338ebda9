"""Tokenizers from files, chat templates in their sandbox, and text that streams in whole characters."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from fairprefix.gpu_ref_engine.chat import CHATML, ChatTemplate
from fairprefix.gpu_ref_engine.errors import ModelError
from fairprefix.gpu_ref_engine.tokenizer import Detokenizer, Tokenizer, byte_tokenizer
from fairprefix.gpu_ref_engine.vocabulary import _LLAMA3, _byte_alphabet, _byte_pairs, hugging_face_tokenizer

TEXT = "The quick brown fox, caf\u00e9 \u4f60\u597d \U0001f680, isn't 12345 years old.\n\n  Indented\ttext."
HI = [{"role": "user", "content": "Hi"}]


def trained(kind: str) -> Any:  # noqa: ANN401
    """Return a small tokenizer that the library has trained on our text."""
    if kind == "byte-level":
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))  # noqa: S106
        made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        made.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = []
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256) if kind != "byte-level")]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=specials[:3], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([TEXT] * 3, trainer)
    if kind != "byte-level":
        made.add_tokens(specials[3:])
        described = json.loads(made.to_str())
        for added in described["added_tokens"][3:]:
            described["model"]["vocab"][added["content"]] = added["id"]
        described["added_tokens"] = described["added_tokens"][:3]
        made = tokenizers.Tokenizer.from_str(json.dumps(described))
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


def saved(folder: Path, made: Any, **settings: Any) -> Path:  # noqa: ANN401
    """Write a tokenizer as a model's directory has it."""
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("kind", ["byte-level", "sentence-piece"])
@given(data=st.data())
def test_text_comes_back(kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any text is encoded as by the library and decoded to itself, at once and token by token."""
    made = trained(kind)
    folder = saved(tmp_path_factory.mktemp("tokenizer"), made, bos_token="<s>", eos_token="</s>")  # noqa: S106
    ours = hugging_face_tokenizer(folder, {"eos_token_id": [2, 7]})
    assert ours.lead == (1,)
    assert ours.eos == {2, 7}
    for text in (TEXT, data.draw(st.text(st.characters(exclude_categories=["Cs"])))):
        tokens = ours.encode(text)
        assert tokens == made.encode(text).ids
        if kind == "byte-level" or 0 not in tokens:  # no token for what was never seen
            assert ours.decode(tokens) == made.decode(tokens) == text
        stream = ours.detokenizer()
        assert "".join([*(stream.add([token]) for token in tokens), stream.flush()]) == ours.decode(tokens)


@given(content=st.binary(max_size=40), cuts=st.lists(st.integers(0, 40)))
def test_characters_stream_whole(content: bytes, cuts: list[int]) -> None:
    """However bytes arrive, what comes out is what decoding them at once gives, and no half of a character."""
    stream = Detokenizer([bytes([byte]) for byte in range(256)])
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    parts = [stream.add(content[begin:end]) for begin, end in pairwise(edges)]
    assert "".join(parts) + stream.flush() == content.decode(errors="replace")


def test_a_character_waits_for_its_last_byte() -> None:
    """The bytes of a character give nothing until the last one; one that is cut off is U+FFFD at the end."""
    stream = byte_tokenizer(320).detokenizer()
    rocket = "\U0001f680".encode()
    assert [stream.add([byte]) for byte in rocket] == ["", "", "", "\U0001f680"]
    assert stream.add(rocket[:2]) == ""
    assert stream.flush() == "\ufffd"


def test_bytes_are_tokens() -> None:
    """The tokenizer of random models takes any text, and gives no text to tokens that are no bytes."""
    ours = byte_tokenizer(320)
    assert ours.decode(ours.encode(TEXT)) == TEXT
    assert ours.encode("a") == [256, 97]
    assert ours.decode([97, 257, 319, 98]) == "ab"


def test_the_alphabet_is_the_librarys() -> None:
    """The 256 characters that stand for bytes are those of the library, and each byte has one."""
    assert set(_byte_alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(_byte_alphabet().values()) == list(range(256))


def test_llama3_cuts_numbers_by_three() -> None:
    """The expression for Llama 3 cuts words, digits (at most three) and punctuation apart."""
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    cut = _byte_pairs(names, [], [], _LLAMA3).pre_tokenizer.pre_tokenize_str("It's 12345, ok?")
    assert [piece.replace("\u0120", " ") for piece, _ in cut] == ["It", "'s", " ", "123", "45", ",", " ok", "?"]


def tokenizer_with(folder: Path, **settings: Any) -> Tokenizer:  # noqa: ANN401
    """Return a tokenizer with these settings."""
    return hugging_face_tokenizer(saved(folder, trained("byte-level"), **settings), {})


def test_templates_are_found(tmp_path: Path) -> None:
    """A chat template comes from its own file, else from the settings (one or several), else it is ChatML."""
    assert tokenizer_with(tmp_path).template.source == CHATML
    assert tokenizer_with(tmp_path, chat_template="A").template.source == "A"
    several = [{"name": "tool", "template": "T"}, {"name": "default", "template": "D"}]
    assert tokenizer_with(tmp_path, chat_template=several).template.source == "D"
    (tmp_path / "chat_template.jinja").write_text("{{ eos_token }}F")
    found = tokenizer_with(tmp_path, eos_token={"content": "</s>"})
    assert found.template.render(HI) == "</s>F"
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5]}')
    assert tokenizer_with(tmp_path, eos_token="</s>").eos == {2, 5}  # noqa: S106


def test_damaged_tokenizers_are_named(tmp_path: Path) -> None:
    """A tokenizer that is missing, damaged, or decodes in an unknown way is refused by name."""
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        hugging_face_tokenizer(tmp_path, {})
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json: is not a valid tokenizer"):
        hugging_face_tokenizer(tmp_path, {})
    made = trained("byte-level")
    made.decoder = decoders.WordPiece()
    with pytest.raises(ModelError, match="decodes by WordPiece is not supported"):
        hugging_face_tokenizer(saved(tmp_path, made), {})


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ messages.append(1) }}",
        "{{ ''.format.__globals__ }}",
    ],
)
def test_templates_cannot_get_out(source: str) -> None:
    """A template from who knows where reaches neither Python's inside nor our data."""
    try:
        text = ChatTemplate(source).render(HI)
    except ModelError:
        return
    assert text == ""  # what is unsafe is undefined


def test_templates_say_no() -> None:
    """A template that is not valid, or does not take the messages, gives its reason."""
    with pytest.raises(ModelError, match="template is not valid: "):
        ChatTemplate("{% for %}")
    with pytest.raises(ModelError, match="does not take these messages: only users"):
        ChatTemplate("{{ raise_exception('only users') }}").render(HI)
    with pytest.raises(ModelError, match=r"does not take these messages: .*division"):
        ChatTemplate("{{ 1 / 0 }}").render(HI)


def test_templates_have_their_helpers() -> None:
    """Templates get what transformers gives them: tojson without escapes, the date, control of loops."""
    assert ChatTemplate("{{ messages | tojson }}").render([{"role": "<a>"}]) == '[{"role": "<a>"}]'
    assert len(ChatTemplate("{{ strftime_now('%Y-%m-%d') }}").render(HI)) == 10
    assert ChatTemplate("{% for m in messages %}{% break %}{% endfor %}x").render(HI) == "x"


def test_chatml_is_what_transformers_renders(tmp_path: Path) -> None:
    """Our renderer gives the text that transformers gives for the same template and messages."""
    saved(tmp_path, trained("byte-level"), tokenizer_class="PreTrainedTokenizerFast", chat_template=CHATML)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    messages = [*HI, {"role": "assistant", "content": "Hello {{ 1 }}"}, *HI]
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert ChatTemplate(CHATML).render(messages) == expected
