import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from headway.engines.scripted import Characters
from headway.text.offsets import decode_with_offsets, token_at
from headway.text.prompts import FINAL_ANSWER, meta_prover, prompt_ids
from headway.text.tags import ThinkTags, find_think_tags
from headway.text.thoughts import read_answer, read_thought
from headway.types import HeadwayError

TAGS = ThinkTags("<think>\n", "</think>")
CHAT = "{% for m in messages %}<user>{{ m['content'] }}{% endfor %}<assistant>"
TEXTS = [
    "Wait, so 2 + 2 = 4.\n\nAlternatively",
    "数学 is 美しい, naïve café",
    "🧮👩‍👩‍👧‍👦 emoji 🇫🇷 flags 🏳️‍🌈",
    "\u202eright to left\u202c שלום עולם مرحبا",
    "  spaces   and\ttabs \u00a0\u3000 ",
    "ﷺ 𝔐𝔞𝔱𝔥 ∑∫√ \ufffd replaced \ufeff",
    "e\u0301 combining \u200b zero width",
]


def byte_level(vocabulary=320):
    """A byte-level BPE tokenizer: most of its tokens are bytes, so many characters take several."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        show_progress=False,
        special_tokens=["<bos>", "<eos>", "<think>", "</think>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(TEXTS * 3, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", bpe.token_to_id("<bos>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<bos>", eos_token="<eos>", chat_template=CHAT)


TOKENIZER = byte_level()
# the printable characters that byte-level BPE writes bytes as: printable Latin-1 as itself, the others from 256 on
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTE = {chr(b): b for b in _PRINTABLE} | {
    chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in _PRINTABLE)
}
ID = {byte: TOKENIZER.convert_tokens_to_ids(character) for character, byte in _BYTE.items()}


def token_bytes(token_id):
    token = TOKENIZER.convert_ids_to_tokens(token_id)
    special = token_id in TOKENIZER.all_special_ids or token in TOKENIZER.get_added_vocab()
    return token.encode() if special else bytes(_BYTE[c] for c in token)


def by_bytes(token_ids):
    """The text of tokens and where each begins, from their bytes: in the character that holds its first byte."""
    pieces = [token_bytes(t) for t in token_ids]
    whole = b"".join(pieces)
    starts = itertools.accumulate((len(p) for p in pieces), initial=0)
    offsets = [len(whole[: s + 1].decode(errors="replace")) - 1 for s, _ in zip(starts, pieces, strict=False)]
    return whole.decode(errors="replace"), offsets


def ids_of(text):
    return TOKENIZER.encode(text, add_special_tokens=False)


IDS = st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=24)
SINGLE_BYTES = st.binary(max_size=24).map(lambda raw: [ID[byte] for byte in raw])


@pytest.mark.parametrize("text", TEXTS)
def test_text_and_offsets_of_real_text(text):
    ids = ids_of(text)
    assert len(ids) > len(text) / 4
    decoded = decode_with_offsets(TOKENIZER, ids)
    assert decoded.text == text
    assert (decoded.text, list(decoded.offsets)) == by_bytes(ids)


def test_half_characters_by_hand():
    # 数 is e6 95 b0: three tokens that begin where it does, and then the a
    ids = [ID[byte] for byte in "x数a".encode()]
    assert len(ids) == 5
    assert decode_with_offsets(TOKENIZER, ids) == ("x数a", (0, 1, 1, 1, 2))
    # cut within the character: what is there of it is one replacement character
    assert decode_with_offsets(TOKENIZER, ids[:3]) == ("x\ufffd", (0, 1, 1))
    assert decode_with_offsets(TOKENIZER, []) == ("", ())


@settings(max_examples=300)
@given(IDS | SINGLE_BYTES | st.text(max_size=12).map(ids_of))
@example(ids_of("\ufffd") * 20 + ids_of("</think>"))
def test_offsets_of_any_tokens_are_those_of_their_bytes(ids):
    decoded = decode_with_offsets(TOKENIZER, ids)
    assert decoded.text == TOKENIZER.decode(ids, skip_special_tokens=False)
    assert (decoded.text, list(decoded.offsets)) == by_bytes(ids)


@given(IDS | SINGLE_BYTES)
def test_offsets_never_fall_and_split_the_text(ids):
    text, offsets = decode_with_offsets(TOKENIZER, ids)
    assert len(offsets) == len(ids)
    assert all(a <= b for a, b in itertools.pairwise([0, *offsets, len(text)]))
    pieces = [text[a:b] for a, b in itertools.pairwise([*offsets, len(text)])]
    assert "".join(pieces) == (text if ids else "")
    for token, offset in zip(ids, offsets, strict=True):
        alone = TOKENIZER.decode([token], skip_special_tokens=False)
        assert "\ufffd" in alone or text[offset:].startswith(alone)


@given(SINGLE_BYTES, st.text(max_size=5))
def test_the_closing_tag_is_found_at_its_own_token_after_any_bytes(before, after):
    """Half a character before the tag once moved the tag's offset back, and the thinking then held the tag."""
    close = TOKENIZER.convert_tokens_to_ids("</think>")
    text, offsets = decode_with_offsets(TOKENIZER, [*before, close, *ids_of(after)])
    assert token_at(offsets, text.find("</think>")) == len(before)


class Counting(Characters):
    """The byte-level tokenizer, and how many tokens it was asked to decode each time."""

    def __init__(self):
        self.asked = []

    def decode(self, token_ids, *, skip_special_tokens):
        self.asked.append(len(token_ids))
        return TOKENIZER.decode(token_ids, skip_special_tokens=skip_special_tokens)


def test_a_long_run_of_broken_bytes_is_read_in_short_steps():
    # the head of a character, 200 bytes that belong to none, and a whole one
    ids = [ID[0xE6], *[ID[0x80]] * 200, *ids_of("数")]
    counting = Counting()
    text, offsets = decode_with_offsets(counting, ids)
    assert (text, list(offsets)) == by_bytes(ids)
    assert max(counting.asked[1:]) < 30  # the first asks for all of them


def test_spaces_that_depend_on_the_context_and_bytes_without_a_token():
    """A tokenizer of words and single bytes that drops a leading space, as Llama 2's does."""
    words = ["<unk>", *(f"<0x{b:02X}>" for b in range(256)), "▁so", "▁", "4", "▁four"]
    bpe = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[], byte_fallback=True))
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe)
    abacus = [words.index(f"<0x{b:02X}>") for b in "🧮".encode()]
    so, space, four, fourth = (words.index(w) for w in ("▁so", "▁", "4", "▁four"))
    decoded = decode_with_offsets(tokenizer, [so, fourth, space, *abacus, four, *abacus, so])
    assert decoded.text == "so four 🧮4🧮 so"
    assert decoded.offsets == (0, 2, 7, 8, 8, 8, 8, 9, 10, 10, 10, 10, 11)


def test_the_first_token_at_or_after_a_position():
    assert [token_at((0, 1, 1, 3), p) for p in (0, 1, 2, 3, 4)] == [0, 1, 3, 3, 4]


def test_think_tags_are_found_or_given():
    assert find_think_tags(TOKENIZER, think_open=None, think_close=None) == TAGS
    assert find_think_tags(TOKENIZER, think_open="", think_close=None) == ThinkTags("", "</think>")
    assert find_think_tags(Characters(), think_open=None, think_close="So:") == ThinkTags("", "So:")
    assert find_think_tags(Characters(), think_open="Hm", think_close="So:") == ThinkTags("Hm", "So:")


def test_think_tags_in_the_template_alone_are_found():
    characters = Characters()
    assert len(characters.encode("</think>", add_special_tokens=False)) > 1
    assert "<think>" in characters.chat_template
    assert find_think_tags(characters, think_open=None, think_close=None) == TAGS


def test_a_model_without_tags_or_template_is_told_what_to_do():
    bare = Characters()
    bare.chat_template = "<user>{content}<assistant>"
    with pytest.raises(HeadwayError, match="--think-close"):
        find_think_tags(bare, think_open=None, think_close=None)
    bare.chat_template = ""
    with pytest.raises(HeadwayError, match="no chat template"):
        find_think_tags(bare, think_open=None, think_close="</think>")


def test_the_opening_tag_is_added_once():
    added = TOKENIZER.decode(prompt_ids(TOKENIZER, "2 + 2?", TAGS), skip_special_tokens=False)
    assert added == "<user>2 + 2?<assistant><think>\n"
    opening = byte_level()
    for end in ("<think>", "<think>\n", "<think>\n\n"):
        opening.chat_template = CHAT + end
        kept = TOKENIZER.decode(prompt_ids(opening, "2 + 2?", TAGS), skip_special_tokens=False)
        assert kept.rstrip() == "<user>2 + 2?<assistant><think>"
    without = prompt_ids(TOKENIZER, "2 + 2?", ThinkTags("", "</think>"))
    assert TOKENIZER.decode(without, skip_special_tokens=False) == "<user>2 + 2?<assistant>"


def test_a_question_that_holds_the_tag_does_not_pass_for_the_template():
    text = TOKENIZER.decode(prompt_ids(TOKENIZER, "what is <think>", TAGS), skip_special_tokens=False)
    assert text == "<user>what is <think><assistant><think>\n"


def test_a_prompt_begins_with_one_bos_where_the_template_writes_it():
    bos = TOKENIZER.bos_token_id
    assert TOKENIZER.encode("x", add_special_tokens=True)[0] == bos
    assert bos not in prompt_ids(TOKENIZER, "2 + 2?", TAGS)
    writing = byte_level()
    writing.chat_template = "{{ bos_token }}" + CHAT
    ids = prompt_ids(writing, "2 + 2?", TAGS)
    assert (ids[0], ids.count(bos)) == (bos, 1)


def test_the_meta_prover_closes_the_thinking_once_and_opens_a_box():
    made = meta_prover(TAGS, branches=3, max_tokens=9)
    assert made.end_suffix == "</think>" + FINAL_ANSWER
    assert made.suffix.endswith(made.end_suffix)
    assert made.suffix.count("</think>") == 1
    assert made.suffix.endswith("\\boxed{")
    assert (made.sampling().n, made.sampling().max_tokens) == (3, 9)
    custom = meta_prover(TAGS, suffix="", end_suffix="!", branches=1, max_tokens=1)
    assert (custom.suffix, custom.end_suffix) == ("", "!")


def answer_in(text):
    return read_answer(text, read_thought(text, TAGS))


def test_the_answer_follows_the_last_closing_tag():
    assert answer_in("a</think>b</think>c") == "c"
    assert answer_in("a</think>") is None
    assert answer_in("a") is None
