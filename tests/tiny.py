"""Tiny models made on the spot: a word-level tokenizer with think tags and an untrained Llama or Qwen2."""

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = ["<pad>", "<end>", "<user>", "<assistant>", "<think>", "</think>", "\n\n", "Wait", "\\boxed{", "}"]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>{% endif %}"
)


def tokenizer(tags: tuple[str, str] = ("<think>", "</think>")) -> PreTrainedTokenizerFast:
    words = [*WORDS[:4], *tags, *WORDS[6:]]
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys([*words, *map(chr, range(32, 127)), "\n"]))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n\n|Wait|\\boxed\{|[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<end>",
        extra_special_tokens=words[2:6],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    made.chat_template = TEMPLATE
    return made


def model(kind: str = "llama", *, seed: int = 0, head_dim: int = 8) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    sizes = dict(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        initializer_range=0.3,
    )
    made = LlamaForCausalLM(LlamaConfig(**sizes)) if kind == "llama" else Qwen2ForCausalLM(Qwen2Config(**sizes))
    return made.eval()


def bigrams(table: Any, *, end: int = 1) -> Any:
    """A Llama whose next token depends on the last one alone: with the probabilities in a row of the table."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    size = len(table)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size, hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
            head_dim=8, rms_norm_eps=0.0, bos_token_id=None, eos_token_id=end, pad_token_id=0,
            tie_word_embeddings=False,
        )
    )  # fmt: skip
    with torch.no_grad():
        for p in made.model.layers[0].parameters():
            p.zero_()
        made.model.embed_tokens.weight.copy_(torch.eye(size))
        # the norm makes a unit vector of length sqrt(size) of the token; the head reads its row of the table
        made.lm_head.weight.copy_(torch.from_numpy(np.log(table).T / np.sqrt(size)))
    return made.eval()


def folder(path: Path, *, head_dim: int = 8) -> Path:
    tokenizer().save_pretrained(path)
    model(head_dim=head_dim).save_pretrained(path)
    return path
