"""Model folders that are damaged, incomplete or hostile: each is one message, and none is measured in part."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import tiny
from headway.engines import hf
from headway.types import HeadwayError

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("model") / "whole")


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "copied")
    return tmp_path / "copied"


def weights(change: Callable[[dict[str, Any]], None]) -> Change:
    def changed(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return changed


def config(**options: Any) -> Change:
    def changed(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | options))

    return changed


def content(name: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


MLP = "model.layers.1.mlp.down_proj.weight"
LACKING: dict[str, tuple[Change, str]] = {
    "a weight": (weights(lambda t: t.pop(MLP)), f"{MLP} is missing"),
    "two weights": (weights(lambda t: (t.pop(MLP), t.pop("lm_head.weight"))), "and 1 more"),
    "another shape": (weights(lambda t: t.update({MLP: t[MLP][:, :8].clone()})), r"is \(32, 8\), not \(32, 64\)"),
    "a layer more": (config(num_hidden_layers=3), "is missing and"),
    "another width": (config(intermediate_size=48), r"not \(32, 48\)"),
    "another architecture": (config(model_type="gpt2", architectures=["GPT2LMHeadModel"]), "is missing"),
    "an encoder": (config(model_type="bert", architectures=["BertLMHeadModel"]), "cannot load|is missing"),
}  # fmt: skip
UNREADABLE: dict[str, Change] = {
    "cut off": content("model.safetensors", lambda b: b[:-1000]),
    "cut in its header": content("model.safetensors", lambda b: b[:100]),
    "empty": content("model.safetensors", lambda b: b""),
    "a page": content("model.safetensors", lambda b: b"<html>404</html>"),
    "a pointer": content("model.safetensors", lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "a header of any length": content("model.safetensors", lambda b: b"\xff" * 8 + b[8:]),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "pickles only": lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin") and None,
    "no config": lambda folder: (folder / "config.json").unlink(),
    "config cut off": content("config.json", lambda b: b[:100]),
    "config a list": content("config.json", lambda b: b"[1]"),
    "config of NULs": content("config.json", lambda b: b"\0" * 100),
    "no heads": config(num_attention_heads=0),
    "three heads": config(num_attention_heads=3, head_dim=None),
    "a negative size": config(hidden_size=-32),
    "a size of text": config(hidden_size="wide"),
    "no size": config(hidden_size=None),
    "a huge vocabulary": config(vocab_size=10**9),
    "a huge width": config(hidden_size=10**8),
    "huge layers": config(intermediate_size=10**8),
    "a huge head": config(head_dim=10**8),
    "a million layers": config(num_hidden_layers=10**6),
    "an unknown kind": config(model_type="nonsense"),
    "code of its own": config(model_type="own", auto_map={"AutoModelForCausalLM": "own.Own"}),
    "no tokenizer": lambda folder: [f.unlink() for f in folder.glob("tokenizer*")] and None,
    "tokenizer cut off": content("tokenizer.json", lambda b: b[:100]),
    "tokenizer of nothing": content("tokenizer.json", lambda b: b"{}"),
    "tokenizer's config a list": content("tokenizer_config.json", lambda b: b"[]"),
}  # fmt: skip


def refused(folder: Path) -> str:
    with pytest.raises(HeadwayError) as raised:
        hf.load(folder)
    message = str(raised.value)
    assert str(folder) in message and len(message) < 900
    return message


@pytest.mark.parametrize("kind", LACKING)
def test_a_model_without_all_of_its_weights_is_refused(copied: Path, kind: str) -> None:
    change, says = LACKING[kind]
    change(copied)
    with pytest.raises(HeadwayError, match=says):
        hf.load(copied)
    assert "\n" not in refused(copied)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_damaged_model_is_one_message(copied: Path, kind: str) -> None:
    UNREADABLE[kind](copied)
    assert "\n" not in refused(copied)


def test_a_model_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    assert "\n" not in refused(tmp_path / "nowhere")
    (tmp_path / "file").write_text("no folder")
    assert "\n" not in refused(tmp_path / "file")


def test_a_model_whose_weights_are_shared_or_in_pieces_is_whole(copied: Path) -> None:
    model = tiny.model()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(copied, max_shard_size="20KB")
    (copied / "model.safetensors").unlink()
    assert len(list(copied.glob("model-*.safetensors"))) > 2
    weights = hf.load(copied).model
    assert weights.lm_head.weight.data_ptr() == weights.model.embed_tokens.weight.data_ptr()
    (copied / "model-00001-of-00003.safetensors").unlink(missing_ok=True)
    next(copied.glob("model-*.safetensors")).unlink()
    refused(copied)


def test_weights_that_are_not_used_are_said(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights(lambda t: t.update({"v_head.weight": t[MLP].clone()}))(copied)
    with caplog.at_level(logging.WARNING):
        hf.load(copied)
    assert "does not use 1 weights of its files, such as v_head.weight" in caplog.text


@pytest.mark.parametrize(
    ("dtype", "is_"), [("bf16", "bfloat16"), ("fp16", "float16"), ("fp32", "float32"), ("auto", "float32")]
)
def test_number_formats_have_short_names(whole: Path, dtype: str, is_: str) -> None:
    assert str(hf.load(whole, dtype=dtype).model.dtype) == f"torch.{is_}"


@pytest.mark.parametrize("dtype", ["evil", "float", "int8", "torch.float32", "BF16", ""])
def test_an_unknown_number_format_is_one_message_with_the_choices(whole: Path, dtype: str) -> None:
    with pytest.raises(HeadwayError, match="dtype must be one of auto, float32, bfloat16, float16, fp32, bf16, fp16"):
        hf.load(whole, dtype=dtype)
