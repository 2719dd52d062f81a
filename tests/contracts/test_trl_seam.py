"""What MRTTrainer asks of TRL, and what it must leave as TRL has it."""

import inspect
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

import tiny
from headway.credit import SCHEMES, Group, Scheme
from headway.engines.hf import compat, prefix_cache
from headway.text.prompts import prompt_ids
from headway.training import MRTConfig, MRTTrainer, dataset_of, policy
from headway.training.logs import StepLog, StepResult, competence_watch, known_share_watch
from headway.training.outcome import TRACE
from headway.training.step import Step
from headway.types import HeadwayError, Problem

# third parties warn about their own futures
pytestmark = pytest.mark.filterwarnings("default")

COMMON: dict[str, Any] = dict(
    num_generations=4,
    per_device_train_batch_size=8,
    max_completion_length=24,
    learning_rate=1e-2,
    max_steps=2,
    bf16=False,
    activation_checkpointing=False,
    use_cpu=True,
    report_to="none",
    save_strategy="no",
    logging_steps=1,
    disable_tqdm=True,
    lr_scheduler_type="constant",
    seed=3,
)
PROBLEMS = [Problem(f"p{i}", f"What is {i}?", str(i)) for i in range(6)]


class Parity:
    """A grader with an opinion on anything, so that untrained models have values that vary."""

    def grade(self, items: Sequence[tuple[Problem, str]]) -> list[float | None]:
        return [float(len(answer) % 2) for _, answer in items]


def by_first_token(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(ids[0] % 2) for ids in completion_ids]


def trained(
    path: Path, kind: type[GRPOTrainer] = MRTTrainer, resume: str | None = None, **options: Any
) -> GRPOTrainer:
    rest: dict[str, Any] = {"peft_config": options.pop("peft_config", None)}
    config = GRPOConfig if kind is GRPOTrainer else MRTConfig
    if kind is not GRPOTrainer:
        rest["grader"] = options.pop("grader", None) or Parity()
    reward_funcs = options.pop("reward_funcs", by_first_token)
    trainer = kind(
        model=tiny.model(seed=7),
        reward_funcs=reward_funcs,
        args=config(output_dir=str(path), **{**COMMON, **options}),
        train_dataset=dataset_of(PROBLEMS),
        processing_class=tiny.tokenizer(),
        **rest,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights(trainer: GRPOTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_methods_we_override_have_the_signatures_we_know() -> None:
    known = {
        "_generate_and_score_completions": ["self", "inputs"],
        "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
        "_tokenize_prompts": ["self", "prompts"],
    }
    for name, parameters in known.items():
        assert list(inspect.signature(getattr(GRPOTrainer, name)).parameters) == parameters


def test_the_attributes_we_read_are_those_we_know(tmp_path: Path) -> None:
    """Of TRL's trainer, its output and its log; `chat_template_kwargs` are there when TRL first reads them."""
    seen: dict[str, Any] = {}

    class Looking(MRTTrainer):
        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            output = super()._generate_and_score_completions(inputs)
            seen.update(output=output, rows=inputs, metrics=dict(self._metrics["train"]))
            return output

        def _tokenize_prompts(self, prompts: list[Any]) -> Any:
            ids, images, fields = super()._tokenize_prompts(prompts)
            seen.update(prompts=ids)
            return ids, images, fields

    trainer = trained(tmp_path, Looking, credit="grpo", max_steps=1)
    output, B = seen["output"], COMMON["per_device_train_batch_size"]
    assert output["advantages"].shape == (B,) and output["completion_ids"].shape[0] == B
    assert [
        ids[mask.bool()].tolist() for ids, mask in zip(output["prompt_ids"], output["prompt_mask"], strict=True)
    ] == [list(ids) for ids in seen["prompts"]]
    first = [row["id"] for row in seen["rows"]]
    assert first[::4] == first[1::4] == first[2::4] == first[3::4]  # groups of num_generations, side by side
    assert trainer.eos_token_ids == [tiny.tokenizer().eos_token_id]
    assert (trainer.num_generations, trainer.max_completion_length) == (4, 24)
    assert trainer.temperature == trainer.args.temperature == 1.0
    assert isinstance(seen["metrics"]["reward"], list)
    assert any("mrt/generated_tokens" in row for row in trainer.state.log_history)  # what a resumed training reads


def test_chat_template_options_are_set_before_trl_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    theirs = GRPOTrainer.__init__
    monkeypatch.setattr(
        GRPOTrainer,
        "__init__",
        lambda self, *a, **k: (given.append(dict(k["args"].chat_template_kwargs)), theirs(self, *a, **k))[1],
    )
    asks = "{{ messages[0].content }}<assistant>{% if not enable_thinking %}<think></think>{% endif %}"
    args = MRTConfig(output_dir=str(tmp_path), **COMMON)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = asks
    MRTTrainer(
        tiny.model(), args=args, train_dataset=dataset_of(PROBLEMS), grader=Parity(), processing_class=tokenizer
    )
    assert given == [{"enable_thinking": True}]
    assert args.chat_template_kwargs is None  # the caller's options stay


@pytest.mark.parametrize("options", [dict(progress_weight=0.0), dict(credit="grpo")], ids=["weight 0", "credit grpo"])
@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
def test_weight_zero_is_grpo_bit_for_bit(tmp_path: Path, loss_type: str, options: dict[str, Any]) -> None:
    ours = weights(trained(tmp_path / "a", loss_type=loss_type, **options))
    theirs = weights(trained(tmp_path / "b", GRPOTrainer, loss_type=loss_type))
    assert same(ours, theirs)
    assert not same(ours, dict(tiny.model(seed=7).named_parameters()))


def nothing(group: Group) -> list[np.ndarray]:
    """No bonus for each episode and the stop: the outcome's advantage on each token."""
    return SCHEMES["grpo"].bonuses(group)


def test_advantages_by_token_are_read_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's loss takes (B, T): the outcome repeated along T trains as the outcome does, and progress does not."""
    plain = weights(trained(tmp_path / "a", GRPOTrainer))
    monkeypatch.setitem(SCHEMES, "nothing", Scheme(nothing))
    assert same(weights(trained(tmp_path / "b", credit="nothing")), plain)
    assert not same(weights(trained(tmp_path / "c", segment="tokens", episode_tokens=6)), plain)


@pytest.mark.parametrize("credit", ["episode", "to_go", "stale_prefix", "mixed_prefix", "brpo", "mig"])
def test_each_form_of_credit_trains_and_tells(tmp_path: Path, credit: str) -> None:
    trainer = trained(tmp_path, credit=credit, segment="tokens", episode_tokens=6, branches=2, answer_tokens=5)
    plain = weights(trained(tmp_path / "plain", GRPOTrainer))
    assert not same(weights(trainer), plain)
    row = next(row for row in trainer.state.log_history if "mrt/progress/mean" in row)
    names = (
        "accuracy regret/normalized regret/cumulative progress/mean progress/negative_frac value/first value/last "
        "value/stderr episodes/mean tokens/thinking branches/tokens branches/ungraded_frac credit/std"
    )
    assert {f"mrt/{name}" for name in names.split()} <= row.keys()
    lines = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    assert len(lines) == 16 and all(len(x["values"]) == len(x["boundaries"]) for x in lines)


class Short:
    """A grader that calls any answer of one or two characters right, and so knows forms for each."""

    def grade(self, items: Sequence[tuple[Problem, str]]) -> list[float | None]:
        return [float(len(answer) <= 2) for _, answer in items]


KINDS = ["branches", "distinct", "likelihood", "hybrid"]


@pytest.mark.parametrize("values", KINDS)
def test_values_start_from_what_sampling_has_computed(
    tmp_path: Path, values: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No trace is computed again for its values, and they are the same as if it were."""
    options = dict(values=values, grader=Short(), max_steps=1, segment="tokens", episode_tokens=6, branches=2)
    found: list[int] = []
    cached = prefix_cache.PrefixCache
    copy = cached.copy
    monkeypatch.setattr(cached, "copy", lambda self, *rest: (found.append(len(rest[0])), copy(self, *rest)))
    trained(tmp_path / "kept", **options)
    assert sum(found) >= 7  # a trace of one token is found with another's
    monkeypatch.setattr(policy, "recording", lambda model: nullcontext(compat.Recorder()))
    found.clear()
    trained(tmp_path / "anew", **options)
    assert not found
    kept, anew = (
        [json.loads(line) for line in (tmp_path / name / "traces.jsonl").read_text().splitlines()]
        for name in ("kept", "anew")
    )
    assert [x["values"] for x in kept] == [pytest.approx(x["values"], abs=1e-5) for x in anew]
    assert any(any(x["values"]) for x in kept)


def test_half_of_a_mixed_group_is_forced_to_answer_at_the_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All completions of a group start at one prefix, the second half after the suffix; nothing else is sampled."""
    seen: list[tuple[list[list[int]], list[Any]]] = []
    read = Step.read

    def watched(self: Step, *args: Any) -> list[dict[str, Any]]:
        rows = read(self, *args)
        seen.append((self._prompts, self._traces))
        return rows

    monkeypatch.setattr(Step, "read", watched)
    trained(tmp_path, credit="mixed_prefix", segment="tokens", episode_tokens=6, grader=Short(), max_steps=1)
    [(prompts, traces)] = seen
    suffix = tiny.tokenizer().encode(
        "\n\nTime is up.\n</think>\n\n**Final Answer**\n\n\\boxed{", add_special_tokens=False
    )
    for start in range(0, len(prompts), 4):
        group = prompts[start : start + 4]
        assert group[0] == group[1] and group[2] == group[3] == [*group[0], *suffix]
    direct = [t for i, t in enumerate(traces) if i % 4 >= 2]
    assert all(t.closed and t.thinking == 0 for t in direct)
    assert {t.reward for t in direct} <= {0.0, 1.0} and any(t.answer for t in direct)
    lines = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    for g in range(0, len(lines), 4):
        r = np.array([x["reward"] for x in lines[g : g + 4]])
        raw = np.array([*(r[:2] - r[2:].mean()), 0, 0])
        assert [x["bonuses"] for x in lines[g : g + 4]] == [[pytest.approx(b)] for b in raw - raw.mean()]


def test_a_mixed_group_has_two_halves(tmp_path: Path) -> None:
    with pytest.raises(HeadwayError, match="even number"):
        trained(tmp_path, credit="mixed_prefix", num_generations=3, per_device_train_batch_size=3)


@pytest.mark.parametrize("values", KINDS)
@pytest.mark.parametrize("credit", ["episode", "stale_prefix"])
def test_each_kind_of_value_trains_and_tells(tmp_path: Path, values: str, credit: str) -> None:
    options = dict(values=values, credit=credit, segment="tokens", episode_tokens=6, branches=2, answer_tokens=5)
    trainer = trained(tmp_path, grader=Short(), max_steps=1, **options)
    assert not same(weights(trainer), dict(tiny.model(seed=7).named_parameters()))
    row = next(row for row in trainer.state.log_history if "mrt/value/known_share" in row)
    share, drawn = row["mrt/value/known_share"], row["mrt/branches/tokens"]
    assert (drawn == 0) == (values == "likelihood")
    if values in ("branches", "distinct"):
        assert share is None
    else:
        assert share == pytest.approx(1) if values == "likelihood" else 0 < share <= 1
    lines = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    found = [v for x in lines for v in x["values"] if v is not None]
    assert found and min(found) >= 0
    assert max(found) < 0.99 or values != "likelihood"
    if values == "likelihood":
        assert all(e == 0 for x in lines for e in x["stderr"])


def test_a_likelihood_in_training_is_that_of_the_policy_in_training(tmp_path: Path) -> None:
    """The first step's values are the untrained model's, scored again by hand from the traces it wrote."""
    options = dict(values="likelihood", segment="tokens", episode_tokens=6, answer_tokens=5)
    trained(tmp_path, grader=Short(), max_steps=1, **options)
    line = json.loads((tmp_path / "traces.jsonl").read_text().splitlines()[0])
    tokenizer, model = tiny.tokenizer(), tiny.model(seed=7)
    problem = next(p for p in PROBLEMS if p.id == line["problem_id"])
    suffix = "\n\nTime is up.\n</think>\n\n**Final Answer**\n\n\\boxed{"
    ends = tokenizer.convert_tokens_to_ids(["<end>", "}", "\n", "\n\n"])
    thought = tokenizer.encode(line["text"], add_special_tokens=False)
    for boundary, value in list(zip(line["boundaries"], line["values"], strict=True))[:-1]:
        text = f"<user>{problem.prompt}<assistant><think>"
        prompt = tokenizer.encode(text, add_special_tokens=False) + thought[:boundary]
        prompt += tokenizer.encode(suffix, add_special_tokens=False)
        answer = tokenizer.encode(problem.answer, add_special_tokens=False)
        with torch.no_grad():
            p = model(torch.tensor([prompt + answer])).logits[0].double().softmax(-1)
        by_hand = p[len(prompt) - 1, answer[0]] * p[-1, ends].sum()
        assert len(answer) == 1 and value == pytest.approx(by_hand.item(), rel=1e-3)


def test_a_likelihood_checks_itself_in_the_first_step(tmp_path: Path) -> None:
    options = dict(values="likelihood", segment="tokens", episode_tokens=6, answer_tokens=5)
    trainer = trained(tmp_path, grader=Short(), max_steps=2, **options)
    rows = [row for row in trainer.state.log_history if "mrt/value/known_share" in row]
    assert ["mrt/value/coverage" in row for row in rows] == [True, False]
    share = rows[0]["mrt/value/coverage"]
    assert share is None or 0 <= share <= 1
    lengths = sum(row["completions/mean_length"] * COMMON["per_device_train_batch_size"] for row in rows)
    assert rows[-1]["mrt/generated_tokens"] > lengths  # its branches are counted


def test_branches_have_the_temperature_and_top_p_of_the_traces(tmp_path: Path) -> None:
    trainer = trained(tmp_path, max_steps=1, temperature=0.7, top_p=0.9)
    assert (trainer.prover.temperature, trainer.prover.top_p) == (0.7, 0.9)
    for unlike in (dict(top_k=20), dict(min_p=0.1), dict(repetition_penalty=1.2)):
        with pytest.raises(HeadwayError, match="not how their branches are"):
            MRTConfig(output_dir=str(tmp_path), **{**COMMON, **unlike})
        MRTConfig(output_dir=str(tmp_path), credit="grpo", **{**COMMON, **unlike})


def test_a_likelihood_in_training_needs_top_p_1(tmp_path: Path) -> None:
    with pytest.raises(HeadwayError, match="top-p 1"):
        trained(tmp_path, grader=Short(), max_steps=1, values="likelihood", top_p=0.9)


def shorter(group: Group) -> list[np.ndarray]:
    """Its length below the group's mean for each completion."""
    return [np.full((2, 1), np.mean(group.lengths) - n) for n in group.lengths]


def test_a_new_credit_is_one_row_and_may_need_no_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The option knows it, its group has the lengths TRL counts, its bonuses train, and nothing is proved."""
    monkeypatch.setitem(SCHEMES, "shorter", Scheme(shorter, pays="completion", needs_values=False))
    options = dict(segment="tokens", episode_tokens=6, max_steps=1)
    trainer = trained(tmp_path / "a", credit="shorter", **options)
    assert not same(weights(trainer), weights(trained(tmp_path / "b", GRPOTrainer, max_steps=1)))
    row = next(row for row in trainer.state.log_history if "mrt/generated_tokens" in row)
    assert row["mrt/generated_tokens"] == row["completions/mean_length"] * 8 and row["mrt/branches/tokens"] == 0
    lines = [json.loads(line) for line in (tmp_path / "a" / "traces.jsonl").read_text().splitlines()]
    assert all(len(x["bonuses"]) == 1 and len(x["values"]) == len(x["boundaries"]) for x in lines)
    assert any(x["bonuses"] != [0.0] for x in lines) and not any(any(x["values"]) for x in lines)
    assert not [r for r in caplog.records if "no value is known" in r.message]


def test_the_log_warns_once_when_the_known_answers_carry_less(caplog: pytest.LogCaptureFixture) -> None:
    watch = known_share_watch()
    for share in [0.8, float("nan"), *[0.8] * 19, *[0.1] * 20]:
        watch.add(share)
    assert [r.getMessage() for r in caplog.records if "known correct answers" in r.getMessage()] != []
    assert len(caplog.records) == 1
    steady = known_share_watch()
    for _ in range(40):
        steady.add(0.3)
    assert len(caplog.records) == 1


def test_the_log_warns_early_when_competence_falls(caplog: pytest.LogCaptureFixture) -> None:
    slow, noisy = competence_watch("right_steps"), competence_watch("true_claims")
    for i in range(40):
        slow.add(0.98 - 0.001 * i)  # three points in thirty steps
        noisy.add(0.8 + 0.1 * (-1) ** i - 0.001 * i)  # as much, which its noise hides
    [record] = caplog.records
    assert "competence/right_steps is 0.954, 0.976 at first" in record.getMessage()


@pytest.mark.parametrize("credit", ["grpo", "to_go"])
def test_the_log_has_what_the_grader_says_of_the_thinking(tmp_path: Path, credit: str) -> None:
    class Judging(Parity):
        def competence(self, thoughts: Sequence[str], rewards: Sequence[float | None]) -> dict[str, float]:
            assert len(thoughts) == len(rewards) == 8
            return {"length": float(np.mean([len(t) for t in thoughts]))}

    trainer = trained(tmp_path, grader=Judging(), credit=credit, max_steps=1, reward_funcs=None)
    assert trainer.state.log_history[0]["mrt/competence/length"] > 0


def test_all_tokens_are_counted_and_the_count_ends_the_training(tmp_path: Path) -> None:
    trainer = trained(tmp_path, max_steps=50, max_generated_tokens=300, segment="tokens", episode_tokens=6)
    assert trainer.cost.totals["generated_tokens"] >= 300
    assert trainer.state.global_step == 1  # 8 traces of up to 24 tokens, 5 boundaries each, 4 branches of up to 32


def test_where_tokens_end_the_training_the_learning_rate_runs_over_them(tmp_path: Path) -> None:
    limit = 1200
    options = dict(max_steps=50, max_generated_tokens=limit, lr_scheduler_type="linear", segment="tokens")
    trainer = trained(tmp_path, credit="grpo", learning_rate=1e-2, **options)
    log = [row for row in trainer.state.log_history if "mrt/generated_tokens" in row]
    assert 2 < len(log) < 50 and log[-1]["mrt/generated_tokens"] >= limit
    used = [
        0,
        0,
        *(row["mrt/generated_tokens"] for row in log),
    ]  # the schedule steps before a step's tokens are counted
    rates = [row["learning_rate"] for row in log]
    assert rates == pytest.approx([1e-2 * (1 - tokens / limit) for tokens in used[: len(log)]], rel=1e-6)


def test_a_schedule_that_cannot_run_over_tokens_is_refused(tmp_path: Path) -> None:
    args = MRTConfig(output_dir=str(tmp_path), **{**COMMON, "max_generated_tokens": 300})
    args.lr_scheduler_type = "reduce_lr_on_plateau"  # TRL's own check asks for an evaluation first
    trainer = MRTTrainer(
        tiny.model(), args=args, train_dataset=dataset_of(PROBLEMS), grader=Parity(), processing_class=tiny.tokenizer()
    )
    with pytest.raises(HeadwayError, match="cannot run over tokens"):
        trainer.train()


def trainer_of(path: Path, template: str, **options: Any) -> MRTTrainer:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    args = MRTConfig(output_dir=str(path), **{**COMMON, **options})
    return MRTTrainer(
        tiny.model(), args=args, train_dataset=dataset_of(PROBLEMS), grader=Parity(), processing_class=tokenizer
    )


def test_training_asks_for_thinking_as_measuring_does(tmp_path: Path) -> None:
    asks = (
        "{{ messages[0].content }}<assistant>{% if not enable_thinking | default(false) %}<think></think>{% endif %}"
    )
    trainer = trainer_of(tmp_path / "a", asks)
    [ids], _, _ = trainer._tokenize_prompts([[{"role": "user", "content": "2 + 2?"}]])
    assert tuple(ids) == prompt_ids(trainer.processing_class, "2 + 2?", trainer.tags)
    assert trainer.processing_class.decode(ids) == "2 + 2?<assistant><think>\n"
    without = trainer_of(tmp_path / "b", asks, chat_template_kwargs={"enable_thinking": False})
    assert without.chat_template_kwargs == {"enable_thinking": False}


def test_training_does_not_leave_the_opening_to_the_model(tmp_path: Path) -> None:
    with pytest.raises(HeadwayError, match="leave think_open out"):
        trainer_of(tmp_path, "{{ messages[0].content }}<assistant>", think_open="")


def test_lora_trains_only_its_adapter(tmp_path: Path) -> None:
    trainer = trained(tmp_path, peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]), segment="tokens")
    assert all("lora" in name for name, p in trainer.model.named_parameters() if p.requires_grad)
    assert any(p.abs().sum() > 0 for name, p in trainer.model.named_parameters() if "lora_B" in name)


def test_a_resumed_training_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    options = dict(segment="tokens", episode_tokens=6, branches=2, save_strategy="steps", save_steps=1)
    whole = trained(tmp_path / "whole", **options)
    trained(tmp_path / "part", **{**options, "max_steps": 1})
    resumed = trained(tmp_path / "part", resume=str(tmp_path / "part" / "checkpoint-1"), **options)
    assert resumed.state.global_step == whole.state.global_step == 2
    for count in ("generated_tokens", "computed_tokens"):
        assert resumed.cost.totals[count] == whole.cost.totals[count] > 0
    assert same(weights(resumed), weights(whole))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(importance_sampling_level="sequence"), "averages the credit"),
        (dict(loss_type="cispo"), "epsilon_high"),
        (dict(loss_type="grpo"), "divides by a trace's length"),
        (dict(loss_type="sapo"), "divides by a trace's length"),
        (dict(use_vllm=True), "use_vllm"),
        (dict(branches=0), "branches must be at least 1"),
        (dict(answer_tokens=0), "answer_tokens must be at least 1"),
        (dict(use_liger_kernel=True), "one advantage a trace"),
    ],
)
def test_what_would_undo_the_credit_is_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(HeadwayError, match=says):
        MRTConfig(output_dir=str(tmp_path), **{**COMMON, **options})
    if not {"branches", "answer_tokens"} & options.keys():
        MRTConfig(output_dir=str(tmp_path), **{**COMMON, **options}, progress_weight=0.0)
        MRTConfig(output_dir=str(tmp_path), **{**COMMON, **options}, credit="grpo")


def test_cispo_with_its_own_bound_is_allowed(tmp_path: Path) -> None:
    MRTConfig(output_dir=str(tmp_path), **COMMON, loss_type="cispo", epsilon_high=5.0)


class Witness(Parity):
    """Remembers which problems it was asked about."""

    def __init__(self) -> None:
        self.asked: set[Problem] = set()

    def grade(self, items: Sequence[tuple[Problem, str]]) -> list[float | None]:
        self.asked |= {problem for problem, _ in items}
        return super().grade(items)


@pytest.mark.parametrize("own_rewards", [False, True])
def test_a_grader_sees_the_question_and_a_trace_has_its_answer(tmp_path: Path, own_rewards: bool) -> None:
    grader, seen = Witness(), []

    class Looking(StepLog):
        def write(self, result: StepResult) -> None:
            seen.extend(result.traces)
            super().write(result)

    def rewards(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        assert [len(t.token_ids) for t in columns[TRACE]] == [len(ids) - (ids[-1] == 1) for ids in completion_ids]
        return [1.0 if t.answer else 0.0 for t in columns[TRACE]]

    trainer = MRTTrainer(
        model=tiny.model(seed=7),
        reward_funcs=rewards if own_rewards else None,
        args=MRTConfig(output_dir=str(tmp_path), **{**COMMON, "max_steps": 1, "think_open": "", "think_close": "1"}),
        train_dataset=dataset_of(PROBLEMS),
        processing_class=tiny.tokenizer(),
        grader=grader,
    )
    trainer.step_log = Looking(trainer)
    trainer.train()
    assert grader.asked <= set(PROBLEMS)
    assert not own_rewards or any(row.get("rewards/rewards/mean", 0) > 0 for row in trainer.state.log_history)
    closed = [t for t in seen if t.closed]
    assert closed and all(t.outcome in ("correct", "wrong") for t in closed if t.answer)
    for t in seen:
        assert t.reward == (float(len(t.answer) % 2) if t.answer else 0.0)


class Undecided:
    """A grader that decides nothing."""

    def grade(self, items: Sequence[tuple[Problem, str]]) -> list[float | None]:
        return [None] * len(items)


def test_steps_without_a_known_value_are_counted_and_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trained(tmp_path, grader=Undecided(), max_steps=3, values="likelihood")
    assert trainer.steps_without_values == 3
    assert trainer.state.log_history[-2]["mrt/steps_without_values"] == 3
    assert sum("no value is known" in r.message for r in caplog.records) == 1
