"""An end of an answer is a text: a token may hold the last characters of an answer and its end.

Small tokenizers are trained on a few lines, like those of GPT-2 (bytes), Llama (metaspace, byte fallback) and T5
(unigrams); the model is a table of hand-made probabilities, so that every token sequence can be enumerated.
"""

import itertools
import math

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import tiny
from headway.engines.hf import HFEngine
from headway.problems.graders import InPlace
from headway.text.known_answers import known_forms
from headway.text.offsets import decode_with_offsets
from headway.types import Continuation, MetaProver, Problem, Prompt, SamplingParams

FORCED = "So \\boxed{"
PROVER = MetaProver(suffix=FORCED, end_suffix=FORCED, max_tokens=16)
ENDS = ("}", "\n")
ANSWERS = ["42", "-1", "\\frac{1}{2}", "2^{10}", "(1,2)", "f(x)", "x + 1"]
CLOSES = ["}", "}}", "}$", "}.", "}\n", " }", "}, so", "\n"]
LINES = [
    f"{before}\\boxed{{{answer}{close}{after}"
    for answer in ANSWERS
    for close in CLOSES
    for before, after in [("So ", ""), ("$", " is it"), ("Then {-1} (2)} [3]} ", "")]
]
SPECIAL = ["<pad>", "<end>"]


def wrapped(backend):
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")


def like_gpt2():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        LINES,
        trainers.BpeTrainer(vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    return wrapped(backend)


def like_llama():
    """Merges across letters and punctuation, spaces as a mark before a word, bytes for what is not known."""
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    backend = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    lines = [piece for line in LINES for piece in line.split("\n")]
    trainer = trainers.BpeTrainer(vocab_size=370, special_tokens=[*SPECIAL, *fallback], show_progress=False)
    # trained on the pieces between spaces, else whole lines would become tokens
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), behavior="merged_with_next")
    backend.train_from_iterator(lines, trainer)
    return wrapped(backend)


def like_t5():
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    backend.train_from_iterator(
        LINES,
        trainers.UnigramTrainer(
            vocab_size=90, special_tokens=[*SPECIAL, "<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    return wrapped(backend)


KINDS = {"gpt2": like_gpt2, "llama": like_llama, "t5": like_t5}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return KINDS[request.param]()


def texts_of(tokenizer):
    """The text of each token by the definition of its vocabulary; None where it is no text by itself."""
    found = []
    for i, piece in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
        if piece in (*SPECIAL, "<unk>"):
            found.append(None)
        elif isinstance(tokenizer.backend_tokenizer.model, models.BPE) and piece.startswith("<0x"):
            found.append(chr(int(piece[3:5], 16)) if int(piece[3:5], 16) < 128 else None)
        elif "ByteLevel" in str(type(tokenizer.backend_tokenizer.decoder)):
            text = tokenizer.decode([i])
            found.append(None if "\ufffd" in text else text)
        else:
            found.append(piece.replace("▁", " "))
    return found


def sequences(texts, text, ends=ENDS):
    """All token sequences that spell a text, each followed by one token that begins with what is left and an end."""
    for i, piece in enumerate(texts):
        if not piece:
            continue
        if piece.startswith(text) and piece[len(text) :].lstrip(" ").startswith(ends):
            yield (i,)
        elif text.startswith(piece):
            yield from ((i, *rest) for rest in sequences(texts, text[len(piece) :], ends))
    if not text:
        yield (SPECIAL.index("<end>"),)


def canonical(tokenizer, text):
    """The tokenizer's tokens of a text in a box; after a new line where it merges the text with the brace."""
    for context in (FORCED, "\n"):
        before = tokenizer.encode(context, add_special_tokens=False)
        ids = tokenizer.encode(context + text, add_special_tokens=False)
        if ids[: len(before)] == before:
            break
    return tuple(ids[len(before) :])


def spellings(tokenizer, answer):
    """All token sequences of an answer and an end; with a space before it, where the brace would merge with it."""
    before = tokenizer.encode(FORCED, add_special_tokens=False)
    merges = tokenizer.encode(FORCED + answer, add_special_tokens=False)[: len(before)] != before
    for space in ("", " ") if merges else ("",):
        yield from sequences(texts_of(tokenizer), space + answer)


def forms_of(tokenizer, answer):
    judge = InPlace(lambda answer, reference: answer == reference)
    return known_forms(tokenizer, PROVER, FORCED, Problem("p", "?", answer), judge)


def table_by_hand(size, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(size, 0.3), size=size) * 0.9 + 0.1 / size


def probability(table, start, path):
    return math.prod(table[a, b] for a, b in itertools.pairwise((start, *path)))


def test_the_vocabularies_have_tokens_that_melt(tokenizer):
    texts = texts_of(tokenizer)
    melted = [text for text in texts if text and text.endswith((")}", "}}"))]
    assert melted and any(
        tokenizer.encode(answer + "}", add_special_tokens=False)[-1] in map(texts.index, melted) for answer in ANSWERS
    )


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_likelihood_is_that_of_all_canonical_beginnings_and_any_last_token(tokenizer, answer):
    """By enumeration of every token sequence of the text and an end."""
    table = table_by_hand(len(tokenizer))
    engine = HFEngine(tiny.bigrams(table), tokenizer)
    prompt = Prompt.of(tuple(tokenizer.encode(FORCED, add_special_tokens=False)))
    forms, texts = forms_of(tokenizer, answer), texts_of(tokenizer)
    assert forms.answers == (answer,)
    [got] = engine.logprobs([prompt], [forms.continuations], ends=forms.ends)
    every = list(spellings(tokenizer, answer))
    spelled = [path for path in every if path[:-1] == canonical(tokenizer, "".join(texts[i] for i in path[:-1]))]
    by_hand = sum(probability(table, prompt.ids[-1], path) for path in spelled)
    # a beginning that is 10,000 times less likely than the best may be dropped
    assert np.exp(got).sum() == pytest.approx(by_hand, rel=2e-3)
    assert np.exp(got).sum() <= sum(probability(table, prompt.ids[-1], path) for path in every) + 1e-9


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_likelihood_is_at_the_temperature_of_the_branches(tokenizer, temperature):
    table = table_by_hand(len(tokenizer))
    warmer = table ** (1 / temperature) / (table ** (1 / temperature)).sum(axis=1, keepdims=True)
    forms, prompt = forms_of(tokenizer, "42"), Prompt.of(tuple(tokenizer.encode(FORCED, add_special_tokens=False)))
    asked = [prompt], [forms.continuations]
    [got] = HFEngine(tiny.bigrams(table), tokenizer).logprobs(*asked, ends=ENDS, temperature=temperature)
    [other] = HFEngine(tiny.bigrams(warmer), tokenizer).logprobs(*asked, ends=ENDS)
    assert np.exp(got) == pytest.approx(np.exp(other), rel=1e-3)


def test_the_probabilities_of_all_ways_to_write_all_answers_are_at_most_1(tokenizer):
    """They are of different sequences: with an end of each at once, none is counted twice."""
    found = [sequence for answer in ANSWERS for sequence in counted(tokenizer, forms_of(tokenizer, answer))]
    assert len(found) == len(set(found)) > 0
    assert not any(a != b and b[: len(a)] == a for a, b in itertools.permutations(found, 2))


def counted(tokenizer, forms):
    engine = HFEngine(tiny.bigrams(table_by_hand(len(tokenizer))), tokenizer)
    for c in forms.continuations:
        yield from ((*c.token_ids, last) for last in engine.vocabulary.closing(c.rest, forms.ends))


@pytest.mark.parametrize("answer", ANSWERS)
def test_whatever_follows_an_answer_its_tokens_are_counted(tokenizer, answer):
    """The tokenizer's own tokens of the answer, an end and any text after it are among those that are counted."""
    forms = forms_of(tokenizer, answer)
    some, spaced = set(counted(tokenizer, forms)), " }" in texts_of(tokenizer)
    for close in CLOSES if spaced else [close for close in CLOSES if close != " }"]:
        ids = canonical(tokenizer, answer + close)
        assert forms.wrote(ids, decode_with_offsets(tokenizer, ids)), close
        assert any(ids[:n] in some for n in range(1, len(ids) + 1)), close
    for other in (answer + "1}", answer + "x", "1" + answer + "}"):
        ids = canonical(tokenizer, other)
        assert not forms.wrote(ids, decode_with_offsets(tokenizer, ids)), other


@pytest.mark.parametrize("answer", ["\\frac{1}{2}", "2^{10}", "(1,2)"])
def test_a_model_that_writes_as_its_tokenizer_does_is_counted_in_full(tokenizer, answer):
    """Bigrams of the lines: nearly all of the probability is in melted ends, which separate ends leave out."""
    size, forced = len(tokenizer), tokenizer.encode(FORCED, add_special_tokens=False)
    counts = np.full((size, size), 1e-6)
    for line in [f"{answer}}}}}", f"{answer}}}$", f"{answer}}}."]:
        for a, b in itertools.pairwise([forced[-1], *canonical(tokenizer, line), SPECIAL.index("<end>")]):
            counts[a, b] += 1
    table = counts / counts.sum(axis=1, keepdims=True)
    forms = forms_of(tokenizer, answer)
    engine = HFEngine(tiny.bigrams(table), tokenizer)
    [got] = engine.logprobs([Prompt.of(tuple(forced))], [forms.continuations], ends=forms.ends)
    every = sum(probability(table, forced[-1], path) for path in spellings(tokenizer, answer))
    assert np.exp(got).sum() == pytest.approx(every, rel=0.01)


def test_branches_are_marked_as_often_as_the_likelihood_says(tokenizer):
    table = table_by_hand(len(tokenizer), seed=3)
    start = tokenizer.encode(FORCED, add_special_tokens=False)[-1]
    for token in canonical(tokenizer, "42"):  # make it likely enough to be seen
        table[start] = 0.4 * table[start] + 0.6 * np.eye(len(table))[token]
        start = token
    engine = HFEngine(tiny.bigrams(table), tokenizer)
    prompt = Prompt.of(tuple(tokenizer.encode(FORCED, add_special_tokens=False)))
    forms = forms_of(tokenizer, "42")
    [got] = engine.logprobs([prompt], [forms.continuations], ends=forms.ends)
    [drawn] = engine.sample([prompt], SamplingParams(max_tokens=5, n=4000, stop=("\n",)), seeds=[0])
    share = np.mean([forms.wrote(c.token_ids, decode_with_offsets(tokenizer, c.token_ids)) for c in drawn])
    p = np.exp(got).sum()
    assert p > 0.005 and abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / len(drawn))


def test_a_continuation_without_tokens_ends_with_the_first_token():
    tokenizer = tiny.tokenizer()
    table = table_by_hand(len(tokenizer))
    for separately in (False, True):
        engine = HFEngine(tiny.bigrams(table), tokenizer)
        engine.language_model.full_attention = not separately
        asked = [Continuation((), ""), Continuation((30,), ""), Continuation((), "no token begins so")]
        [got] = engine.logprobs([Prompt.of((9, 8))], [asked], ends=("}",))
        brace = tokenizer.convert_tokens_to_ids("}")
        closed = table[:, [1, brace]].sum(axis=1)
        assert np.exp(got) == pytest.approx([closed[8], table[8, 30] * closed[30], 0.0], rel=1e-4)
        [only] = engine.logprobs([Prompt.of((9, 8))], [asked[:1]], ends=("}",))
        assert only == pytest.approx(got[:1])
