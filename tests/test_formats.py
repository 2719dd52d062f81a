"""Think formats of the families people use, on small tokenizers whose templates are built like theirs."""

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from headway.core.segment import by_tokens
from headway.problems.graders import InPlace, exact
from headway.procedures.prove import Prover
from headway.procedures.sample import Sampling, grade_traces, make_trace, sample
from headway.text.prompts import meta_prover, prompt_ids
from headway.text.tags import FORMATS, ThinkTags, find_think_tags, opening_of
from headway.text.thoughts import read_answer, read_thought
from headway.types import Completion, HeadwayError, Problem

PROBLEM = Problem("1", "2 + 2?", "4")
ROLES = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
TEMPLATES = {
    # writes the BOS, drops earlier thoughts, opens the thinking itself
    "r1": "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}",
    "r1-old": "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    # leaves the opening to the model, and closes an empty thought if it must not think
    "qwen3": ROLES + "<|assistant|>\n{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}",
    # says the mode in the system's turn; here the default is not to think
    "smollm3": "<|system|>{{ '/think' if enable_thinking | default(false) else '/no_think' }}"
    + ROLES
    + "<|assistant|>\n"
    "{% if not enable_thinking | default(false) %}<think>\n\n</think>\n{% endif %}",
    # one of the two tags, by another name of the switch
    "v3.1": "{{ bos_token }}" + ROLES + "<|assistant|>{{ '<think>' if thinking | default(false) else '</think>' }}",
    "gpt-oss": "<|start|>system<|message|>Channels: analysis, final<|channel|><|end|>"
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}<|start|>assistant",
    "magistral": "{{ bos_token }}<|system|>Think in [THINK]here[/THINK].{% for m in messages %}<|{{ m.role }}|>"
    "{{ m.content }}{% endfor %}<|assistant|>",
}
FORMAT = dict.fromkeys(TEMPLATES, "think") | {"gpt-oss": "harmony", "magistral": "magistral"}
SPECIALS = {
    "think": ["<think>", "</think>"],
    "harmony": ["<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>"],
    "magistral": ["[THINK]", "[/THINK]"],
}
FAMILIES = pytest.mark.parametrize("family", TEMPLATES)


def tokenizer(template: str | None, *specials: str) -> PreTrainedTokenizerFast:
    """One token a character and one a special, and a BOS that the tokenizer adds wherever it is let."""
    backend = Tokenizer(
        models.WordLevel({c: i for i, c in enumerate([*map(chr, range(32, 127)), "\n"])}, unk_token="?")
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(["<bos>", "<eos>", *specials])
    bos = ("<bos>", backend.token_to_id("<bos>"))
    backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[bos])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>")
    made.chat_template = template
    return made


def of(family: str) -> PreTrainedTokenizerFast:
    return tokenizer(TEMPLATES[family], *SPECIALS[FORMAT[family]])


def tags_of(family: str, think_open: str | None = None) -> ThinkTags:
    return find_think_tags(of(family), think_open=think_open, think_close=None)


@FAMILIES
def test_a_familys_format_is_found_and_its_prompt_opens_the_thinking_once(family: str) -> None:
    model, tags = of(family), tags_of(family)
    assert tags == FORMATS[FORMAT[family]]
    ids = prompt_ids(model, PROBLEM.prompt, tags)
    text = model.decode(ids, skip_special_tokens=False)
    assert text.rstrip().endswith(opening_of(tags))
    assert text.partition("2 + 2?")[2].count(opening_of(tags)) == 1
    assert tags.close not in text.partition("2 + 2?")[2]
    assert "/no_think" not in text


@FAMILIES
def test_there_is_a_bos_where_the_template_writes_one_and_never_two(family: str) -> None:
    model = of(family)
    assert model.encode("x", add_special_tokens=True)[0] == model.bos_token_id
    ids = prompt_ids(model, PROBLEM.prompt, tags_of(family))
    assert ids.count(model.bos_token_id) == ("bos_token" in TEMPLATES[family])


@FAMILIES
def test_what_forces_an_answer_closes_the_thinking_in_tokens_of_the_model(family: str) -> None:
    model, tags = of(family), tags_of(family)
    closing = [model.convert_tokens_to_ids(t) for t in SPECIALS[FORMAT[family]] if t in tags.close]
    prover = meta_prover(tags, branches=1, max_tokens=4)
    for text in (prover.suffix, prover.end_suffix):
        ids = model.encode(text, add_special_tokens=False)
        assert sorted({i for i in ids if i in closing}) == sorted(closing)
        assert text.count(tags.close) == 1


def read(family: str, says: str, stop: str = "stop", *, think_open: str | None = None, budget: int | None = None):
    """What becomes of a completion of a family: a graded trace."""
    model, tags = of(family), tags_of(family, think_open)
    completion = Completion(tuple(model.encode(says, add_special_tokens=False)), stop)
    prompt = prompt_ids(model, PROBLEM.prompt, tags)
    trace = make_trace(model, "1", 0, prompt, completion, tags, budget=budget)
    [graded] = grade_traces([trace], {"1": PROBLEM}, InPlace(exact))
    kept = graded.prompt_ids + graded.token_ids
    assert kept == (prompt + completion.token_ids)[: len(kept)]
    return graded


OPENS = pytest.mark.parametrize("think_open", [None, ""], ids=["opened by the prompt", "opened by the model"])


@FAMILIES
@OPENS
def test_thinking_and_answer_are_told_apart_whoever_opened_the_thinking(family: str, think_open: str | None) -> None:
    tags = tags_of(family, think_open)
    opening = "" if tags.open else FORMATS[FORMAT[family]].open
    traces = {
        "correct": read(family, f"{opening}Hm. \\boxed{{5}}{tags.close}It is \\boxed{{4}}.", think_open=think_open),
        "wrong": read(family, f"{opening}Hm. \\boxed{{4}}{tags.close}It is \\boxed{{5}}.", think_open=think_open),
        "no_answer": read(family, f"{opening}Hm.{tags.close}", think_open=think_open),
        "truncated": read(family, f"{opening}Hm. \\boxed{{4}}", "length", think_open=think_open),
    }
    assert {outcome: trace.outcome for outcome, trace in traces.items()} == {name: name for name in traces}
    for trace in traces.values():
        assert trace.thought.strip().startswith("Hm.")
        model = of(family)
        assert model.decode(trace.prompt_ids, skip_special_tokens=False).rstrip().endswith(opening_of(tags))
    # ended without closing: no answer, and no loss of the thought
    ended = read(family, f"{opening}It is \\boxed{{4}}.", think_open=think_open)
    assert (ended.closed, ended.answer, ended.reward, ended.outcome) == (False, None, 0.0, "no_answer")


@FAMILIES
def test_a_completion_that_neither_the_prompt_nor_the_model_opened_is_all_answer(family: str) -> None:
    if tags_of(family, "").open:
        assert family in ("r1", "v3.1")  # the template itself opens
        return
    trace = read(family, "It is \\boxed{4}.", think_open="")
    assert (trace.thinking, trace.closed, trace.answer, trace.outcome) == (0, True, "4", "correct")
    assert read(family, " ", think_open="").outcome == "no_answer"


@FAMILIES
@OPENS
def test_a_budget_cuts_the_thinking_and_counts_the_same_tokens_either_way(family: str, think_open: str | None) -> None:
    tags = tags_of(family, think_open)
    opening = "" if tags.open else FORMATS[FORMAT[family]].open.strip()
    trace = read(family, f"{opening}123456789{tags.close}\\boxed{{4}}", think_open=think_open, budget=5)
    assert (trace.text, trace.thinking, trace.outcome) == ("12345", 5, "truncated")
    whole = read(family, f"{opening}12345{tags.close}\\boxed{{4}}", think_open=think_open, budget=5)
    assert (whole.thinking, whole.outcome) == (5, "correct")


def test_the_thinking_ends_at_the_first_closing_tag_and_the_answer_follows_the_last() -> None:
    tags = tags_of("qwen3", "")
    assert read_thought("Hm</think>4", tags) == (0, 2, 10)  # written elsewhere, its opening left out
    assert read_thought("\n<think>a</think>b</think>c", tags) == (8, 9, 26)
    assert read_thought("say <think>", tags) == (0, 0, 0)  # the tag is spoken of, not thought in
    assert read_thought("<think></think>4", tags) == (7, 7, 15)
    assert read_thought("Sure.<think>a</think>4", tags) == (12, 13, 21)
    opened = tags_of("r1")
    for text, answer in (
        ("a</think>5</think>", "5"),  # what closes nothing at the end is none
        ("a</think>b<think>c</think>4", "4"),
        ("a</think>4<think>c", None),  # thinks again and never ends
        ("a</think>4, as <think> opens and </think> closes", "4, as <think> opens and </think> closes"),
    ):
        found = read_thought(text, opened)
        assert (found.start, found.stop, read_answer(text, found)) == (0, 1, answer)
    alone = "<|channel|>final<|message|>4<|return|>"
    assert read_answer(alone, read_thought(alone, tags_of("gpt-oss", ""))) == "4"
    custom = ThinkTags("", "####")
    assert read_thought("so 4", custom) == (0, 4, None)
    assert read_thought("so #### 4", custom) == (0, 3, 7)


def test_a_long_thought_of_several_analysis_messages_ends_at_the_final_channel() -> None:
    more = "<|end|><|start|>assistant<|channel|>analysis<|message|>"
    trace = read("gpt-oss", f"Hm.{more}Wait.{FORMATS['harmony'].close}\\boxed{{4}}")
    assert (trace.thought, trace.outcome) == (f"Hm.{more}Wait.", "correct")


class Says:
    """An engine that goes on in a fixed way: thinks and answers, or fills the box that was opened."""

    def __init__(self, family: str, says: str) -> None:
        self.tokenizer, self._says, self.asked = of(family), says, []

    def sample(self, prompts, params, *, seeds):
        self.asked += [self.tokenizer.decode(p.ids, skip_special_tokens=False) for p in prompts]
        texts = ["4}" if asked.endswith("\\boxed{") else self._says for asked in self.asked[-len(prompts) :]]
        ids = [tuple(self.tokenizer.encode(text, add_special_tokens=False)) for text in texts]
        return [[Completion(i, "stop")] * params.n for i in ids]


@FAMILIES
@OPENS
def test_every_boundary_of_a_thought_is_inside_its_tags(family: str, think_open: str | None) -> None:
    tags = tags_of(family, think_open)
    opening = "" if tags.open else FORMATS[FORMAT[family]].open.strip()
    engine = Says(family, f"{opening}1234{tags.close}\\boxed{{4}}")
    [traces] = sample(engine, [PROBLEM], InPlace(exact), tags, Sampling(1, 9, 9))
    engine.asked.clear()
    prover = meta_prover(tags, branches=2, max_tokens=9)
    proving = Prover(
        engine, prover, {"1": PROBLEM}, grader=InPlace(exact), segmenter=lambda t: by_tokens(t.thinking, size=2)
    )
    [branches] = proving.draw(traces)
    assert [b.reward for b in branches] == [1.0] * 6
    inside = [text.rpartition(opening_of(tags))[2] for text in engine.asked]
    assert [text.strip() for text in inside] == [
        f"{thought}{forced}".strip()
        for thought, forced in (("", prover.suffix), ("12", prover.suffix), ("1234", prover.end_suffix))
    ]


def test_an_unknown_format_says_what_to_give() -> None:
    unknown = tokenizer(ROLES, "<reason>", "</reason>")
    with pytest.raises(HeadwayError) as error:
        find_think_tags(unknown, think_open=None, think_close=None)
    for said in ("<think> </think>", "[THINK] [/THINK]", "<|channel|>analysis", "--think-close", "--think-open"):
        assert said in str(error.value)
    given = find_think_tags(unknown, think_open="<reason>", think_close="</reason>")
    assert given == ThinkTags("<reason>", "</reason>")


def test_the_template_decides_between_formats_of_the_vocabulary_and_a_name_decides_all() -> None:
    both = [*SPECIALS["think"], *SPECIALS["magistral"]]
    assert (
        find_think_tags(tokenizer(ROLES + "<|assistant|>[THINK]", *both), think_open=None, think_close=None)
        == FORMATS["magistral"]
    )
    torn = tokenizer(ROLES, *both)
    with pytest.raises(HeadwayError, match="several think formats: think, magistral; say which with think_format"):
        find_think_tags(torn, think_open=None, think_close=None)
    for name, tags in FORMATS.items():
        assert find_think_tags(torn, think_open=None, think_close=None, think_format=name) == tags
    with pytest.raises(HeadwayError, match="--think-close"):
        find_think_tags(tokenizer(ROLES), think_open=None, think_close=None)


def test_a_template_that_only_answers_is_refused() -> None:
    closed = tokenizer(ROLES + "<|assistant|><think>\n\n</think>\n\n", *SPECIALS["think"])
    with pytest.raises(HeadwayError, match="asks for an answer without thinking"):
        find_think_tags(closed, think_open=None, think_close=None)
