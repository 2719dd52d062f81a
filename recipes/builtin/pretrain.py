"""Makes the embedded default model from nothing: tokenizer, demonstrations, pretraining, checkpoint.

    python recipes/builtin/pretrain.py --out FIRST --tokens 18e6 --learning-rate 2e-3
    python recipes/builtin/pretrain.py --out src/headway/builtin/countdown --start FIRST --easy 0 --tokens 5e6 \\
        --learning-rate 1e-3 --seed 1

The result is an ordinary Hugging Face folder (Llama architecture, safetensors, chat template with think tags).
"""

import argparse
import json
import math
import re
import string
import time
from pathlib import Path

import torch
from demonstrations import HINT, demonstrations
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<unk>", "<end>", "<user>", "<assistant>", "<think>", "</think>")
TIME_IS_UP = "\n\nTime is up.\n"
FINAL_ANSWER = "\n\n**Final Answer**\n\n\\boxed{"
PIECES = (
    TIME_IS_UP, FINAL_ANSWER, "\n\n", "Okay", "Wait", "Alternatively", "Reach ", " with ", ", ",
    " + ", " - ", " * ", " / ", " = ", "? Yes.", "? No.",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer: a number, an operator or a stock phrase is one token, any other ASCII a character."""
    words = [*SPECIAL, *map(str, range(100)), *PIECES, *(c for c in string.printable if not c.isdigit())]
    vocabulary = {word: n for n, word in enumerate(dict.fromkeys(words))}
    pattern = "|".join([*map(re.escape, PIECES), r"[1-9][0-9]|[0-9]", r"[\s\S]"])
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", eos_token="<end>",
        extra_special_tokens=list(SPECIAL[3:]), clean_up_tokenization_spaces=False, padding_side="left",
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerFast, seed: int, n: int, hint: float) -> list[tuple[list[int], list[int]]]:
    """Demonstrations as token ids and labels, shortest first. The prompt and the forced suffix are not learned."""
    rows = []
    for d in demonstrations(seed, n, hint=hint):
        parts = [
            (f"<user>{d.prompt}<assistant><think>", False),
            (d.thought, True),
            (f"{TIME_IS_UP}</think>{FINAL_ANSWER}" if d.forced else f"</think>{FINAL_ANSWER}", not d.forced),
            (f"{d.answer}}}<end>", True),
        ]
        encoded = tokenizer([text for text, _ in parts], add_special_tokens=False)["input_ids"]
        ids = [i for part in encoded for i in part]
        labels = [i if learned else -100 for part, (_, learned) in zip(encoded, parts, strict=True) for i in part]
        rows.append((ids, labels))
    return sorted(rows, key=lambda row: len(row[0]))


def batches(tokenizer: PreTrainedTokenizerFast, *, seed: int, tokens_per_batch: int, tokens: float, easy: float):
    """Endless batches `(input_ids, labels)` of about equal size, each of sequences of about equal length.

    Over the first `easy` of all tokens the share of right attempts falls from a half: hits and misses in balance are
    what the model learns to tell them apart from.
    """
    pool = seen = 0
    generator = torch.Generator().manual_seed(seed)
    while True:
        ease = max(0.0, 1 - seen / (easy * tokens)) if easy else 0.0
        rows = encode(tokenizer, seed * 10_000 + pool, 2048, HINT + ease * (0.5 - HINT))
        pool += 1
        cut, cuts, longest = [], [], 0
        for row in rows:
            longest = len(row[0])
            if cut and longest * (len(cut) + 1) > tokens_per_batch:
                cuts.append(cut)
                cut = []
            cut.append(row)
        for k in torch.randperm(len(cuts), generator=generator).tolist():
            width = len(cuts[k][-1][0])
            input_ids = torch.zeros(len(cuts[k]), width, dtype=torch.long)
            labels = torch.full_like(input_ids, -100)
            for r, (ids, learned) in enumerate(cuts[k]):
                input_ids[r, : len(ids)] = torch.tensor(ids)
                labels[r, : len(ids)] = torch.tensor(learned)
            seen += input_ids.numel()
            yield input_ids, labels


def main() -> None:
    """Trains and saves; writes a line of JSON for each hundred steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="go on from this checkpoint instead of from nothing")
    parser.add_argument(
        "--easy", type=float, default=0.4, help="share of the tokens over which right attempts thin out"
    )
    parser.add_argument("--tokens", type=float, default=18e6)
    parser.add_argument("--tokens-per-batch", type=int, default=4096)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=args.width, intermediate_size=args.width * 14 // 5,
        num_hidden_layers=args.layers, num_attention_heads=args.heads, num_key_value_heads=args.heads,
        max_position_embeddings=1024, tie_word_embeddings=True, initializer_range=0.04,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM.from_pretrained(args.start) if args.start else LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    seen, step, start = 0, 0, time.monotonic()
    tokenizer.save_pretrained(args.out)
    with (args.out / "pretrain.jsonl").open("w") as log:
        stream = batches(
            tokenizer, seed=args.seed, tokens_per_batch=args.tokens_per_batch, tokens=args.tokens, easy=args.easy
        )
        for input_ids, labels in stream:
            done = seen / args.tokens
            if done >= 1:
                break
            rate = min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))
            for group in optimizer.param_groups:
                group["lr"] = args.learning_rate * max(rate, 0.01)
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(input_ids=input_ids, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            seen, step = seen + input_ids.numel(), step + 1
            if step % 100 == 0:
                row = {"step": step, "tokens": seen, "loss": round(loss.item(), 4), "s": time.monotonic() - start}
                print(json.dumps(row), file=log, flush=True)
                model.save_pretrained(args.out)
    model.save_pretrained(args.out)


if __name__ == "__main__":
    main()
