"""MRT as STaR: rounds of sample, prove, select and fine-tune, each going on where it stopped.

star.json        the recipe and the version of Headway
rounds.jsonl     the metrics of each finished round
round-N/         one round
  run/             its traces, scores and branches: a run folder like any other
  solutions/       branches.jsonl: answers sampled after the prefixes that `best_prefix` chose
  selected.jsonl   one `Text` a line: what the model is trained on
  selection.json   the metrics of the selection
  training/        TRL's checkpoints, if the recipe saves any
  training.json    the metrics of the training
  model/           the fine-tuned model; a round that has one is finished
"""

import dataclasses
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
import numpy as np

from headway import __version__
from headway.choices import Option, Options, declared
from headway.core.segment import Cutting
from headway.core.star import RULES, Choice, RuleName
from headway.problems import ProblemSet
from headway.procedures.sample import Sampling, TraceKey, derive_seed
from headway.procedures.select import (
    Candidate,
    Text,
    choose,
    cut_text,
    fresh_rounds,
    left_out,
    solutions,
    whole_text,
)
from headway.runs.measure import Measurement
from headway.runs.open_run import Tell
from headway.runs.settings import EngineSpec, ProblemOptions, Proving, Settings, extra, problems_of
from headway.runs.store import Records, Run
from headway.types import Branch, HeadwayError

SCHEMA = 1
Start = Literal["base", "last"]


class StarOptions(Options, frozen=True):
    """What the rounds do."""

    rule: Annotated[RuleName, Option("Which texts are trained on: docs/training.md.")] = "best_prefix"
    rounds: Annotated[int, Option("Rounds of sample, prove, select and fine-tune.", least=1)] = 1
    start: Annotated[Start, Option("What each round fine-tunes: the base model (STaR), or the last round's.")] = "base"


# options of measuring that TRL has under its own names, and those without meaning here
OTHERS = {"model", "dtype", "trust_remote_code", "tokenizer", "seed", "precision", "value_precision", "max_branches"}
MEASURING = (EngineSpec, ProblemOptions, Sampling, Cutting, Proving)
# what may differ when a recipe continues: nothing here changes a model
MAY_CHANGE = {"rounds", "cache", "output_dir", "run_name", "report_to", "project", "disable_tqdm", "vllm_args"}
MAY_CHANGE_LIKE = ("logging_", "log_", "save_", "hub_", "push_to_", "trackio_", "dataloader_pin")


def _fields(*groups: type[Options]) -> Iterator[tuple[str, Any, Any]]:
    """The options of some groups as fields of a dataclass for TRL's parser; the problems have no default."""
    for group in groups:
        hints, options = get_type_hints(group), declared(group)
        for field in msgspec.structs.fields(group):
            if field.name not in OTHERS:
                default = None if field.name == "problems" else field.default
                hint = str | None if field.name == "problems" else hints[field.name]
                made = dataclasses.field(default=default, metadata={"help": options[field.name].help})
                yield field.name, hint, made


MeasuringArguments = dataclasses.make_dataclass("MeasuringArguments", _fields(*MEASURING))
StarArguments = dataclasses.make_dataclass("StarArguments", _fields(StarOptions))


class Recipe:
    """A recipe: the rounds' options, how traces are sampled and proved, and TRL's options of SFT and of the model."""

    def __init__(self, arguments: list[str]) -> None:
        with extra("train", "fine-tuning needs trl"):
            from trl import ModelConfig

            from headway.training.config import FineTuneConfig
            from headway.training.recipe import parse
        groups = (StarArguments, MeasuringArguments, FineTuneConfig, ModelConfig)
        star, measuring, self.sft, self.model = parse(groups, arguments, "star")
        self.star = StarOptions(**dataclasses.asdict(star))
        self.star.check()
        self.measuring = dataclasses.asdict(measuring)
        for name, value in (("problems", self.measuring["problems"]), ("output_dir", self.sft.output_dir)):
            if not value:
                raise HeadwayError(f"the recipe has no {name}; give '{name}' in it, or --{name}")
        if not self.model.model_name_or_path:
            raise HeadwayError("no model; give 'model_name_or_path' in the recipe or --model_name_or_path")
        self.out, self.base = Path(self.sft.output_dir), self.model.model_name_or_path
        self.settings(self.base, self.sft.seed)  # refuses what cannot be used

    def settings(self, model: str, seed: int) -> Settings:
        """The settings of a round's run."""
        return Settings.of(model=model, seed=seed, trust_remote_code=self.sft.trust_remote_code, **self.measuring)

    @cached_property
    def problems(self) -> ProblemSet:
        """The problems of all rounds."""
        return problems_of(self.settings(self.base, self.sft.seed))

    def flat(self) -> dict[str, Any]:
        """All options by name, as star.json holds them."""
        model = dataclasses.asdict(self.model)
        made = self.sft.to_dict() | model | self.measuring | msgspec.to_builtins(self.star)
        return json.loads(json.dumps(made, default=str))

    def claim(self) -> None:
        """Writes star.json, or compares this recipe with the one that is there; HeadwayError names what differs."""
        store, file = Run(self.out, {}), self.out / "star.json"
        now = self.flat()
        if file.exists():
            there = json.loads(file.read_bytes())["options"]
            differ = [k for k in sorted({*now, *there}) if now.get(k) != there.get(k) and not _may_change(k)]
            if differ:
                shown = "; ".join(f"{k}: there {there.get(k)!r}, now {now.get(k)!r}" for k in differ)
                held = f"{self.out} holds rounds of another recipe ({shown})"
                raise HeadwayError(f"{held}; give the same recipe to continue them, or another --output_dir")
        elif self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise HeadwayError(f"{self.out} exists and holds no rounds; give an empty or new folder as --output_dir")
        self.out.mkdir(parents=True, exist_ok=True)
        store.write_json("star.json", {"schema": SCHEMA, "headway": __version__, "options": now})


def _may_change(name: str) -> bool:
    return name in MAY_CHANGE or name.startswith(MAY_CHANGE_LIKE)


class Ending(msgspec.Struct, frozen=True):
    """How a trace ended, without its text and tokens."""

    stop: Literal["stop", "length"]


class Round:
    """One round in its folder."""

    def __init__(self, recipe: Recipe, number: int, tell: Tell) -> None:
        self.recipe, self.number, self.path = recipe, number, recipe.out / f"round-{number}"
        self.model = self.path / "model"
        before = recipe.out / f"round-{number - 1}" / "model"
        self.source = recipe.base if number == 1 else str(before)  # what is sampled from
        self.start = self.source if recipe.star.start == "last" else recipe.base  # what is fine-tuned
        self._tell: Tell = lambda stage, *n: tell(f"round {number}: {stage}", *n)
        self._store = Run(self.path, {})

    def advance(self) -> dict[str, Any]:
        """Does what is missing of the round, and returns its metrics."""
        if not (self.path / "selection.json").exists():
            self._select()
        if not self.model.is_dir():
            self._fine_tune()
        selection, training = (json.loads((self.path / f"{n}.json").read_bytes()) for n in ("selection", "training"))
        return selection | training

    def _select(self) -> None:
        """Samples, proves and selects: writes selected.jsonl and selection.json."""
        seed = derive_seed(self.recipe.sft.seed, "round", self.number)
        rule = RULES[self.recipe.star.rule]
        settings, problems = self.recipe.settings(self.source, seed), self.recipe.problems
        with Measurement.create(self.path / "run", settings, self._tell, problems=problems) as run:
            run.sample()
            if rule.needs_values:
                run.prove()
            table, traces = run.table(), run.ordered_traces()
            keys = list(zip(table.problems, table.indices, strict=True))
            finished = [t.stop == "stop" for t in traces.read_as(Ending)]
            rows = zip(keys, table.outcomes, finished, table.curves, strict=True)
            candidates = [Candidate(*row) for row in rows]
            choices = choose(rule, candidates, budget=settings.whole)
            answers = self._solutions(run, candidates, choices, seed) if rule.cuts else []
            solved = solutions(answers, max_tokens=settings.sampling.answer_tokens)
            choices = [c._replace(left_out="no_solution") if c.boundary is not None and k not in solved else c
                       for k, c in zip(keys, choices, strict=True)]  # fmt: skip
            texts, choices = self._texts(run, choices, solved)
        if not texts:
            counts = ", ".join(f"{n} {reason}" for reason, n in left_out(choices).items())
            raise HeadwayError(
                f"round {self.number}: no text was selected from {len(keys)} traces ({counts}); take easier problems, "
                "more traces, a larger budget or another rule, or look at the traces with "
                f"`headway report --out {self.path / 'run'}`"
            )
        self._store.write_text("selected.jsonl", "".join(msgspec.json.encode(t).decode() + "\n" for t in texts))
        scored = [c.curve.values.values[h.boundary] for c, h in zip(candidates, choices, strict=True)
                  if h.boundary is not None]  # fmt: skip
        self._store.write_json("selection.json", {
            "round": self.number, "rule": self.recipe.star.rule, "sampled_from": self.source, "start": self.start,
            "problems": len(set(table.problems)), "sampled": len(keys), "correct": table.outcomes.count("correct"),
            "selected": len(texts), "selected_problems": len({t.problem_id for t in texts}),
            "left_out": left_out(choices),
            "tokens_sampled": int(table.tokens.sum() + table.forced.sum()) + sum(b.sampled for b in answers),
            "tokens_selected": sum(len(t.completion_ids) for t in texts),
            "chosen_value": _mean(scored),
            "fresh_value": _mean([b.reward for b in answers if b.reward is not None]),
        })  # fmt: skip

    def _solutions(
        self, run: Measurement, candidates: list[Candidate], choices: list[Choice], seed: int
    ) -> list[Branch]:
        """Branches after the chosen prefixes, independent of those that chose them."""
        rounds = fresh_rounds(candidates, choices)
        store = Run(self.path / "solutions", {})
        store.path.mkdir(exist_ok=True)
        cut = [i for i, c in enumerate(candidates) if c.key in rounds]
        done = {(b.key, b.boundary, b.branch) for b in store.branches()}
        made, total = len(done), len(cut) * run.meta_prover.branches
        self._tell("solve", made, total)
        for branches in run.prover.draw(run.ordered_traces().take(cut), seed=seed, done=done, rounds=rounds):
            store.append(branches)
            made += len(branches)
            self._tell("solve", made, total)
        return list(store.branches())

    def _texts(
        self, run: Measurement, choices: list[Choice], solved: dict[TraceKey, Branch]
    ) -> tuple[list[Text], list[Choice]]:
        """The texts of the traces that are kept, and the choices with those that are too long left out."""
        end, longest = getattr(run.engine.tokenizer, "eos_token_id", None), self.recipe.sft.max_length
        if end is None:
            raise HeadwayError("the model's tokenizer has no eos_token, which ends a text of the training; set one")
        kept = [i for i, choice in enumerate(choices) if choice.left_out is None]
        texts, choices = [], list(choices)
        for i, trace in zip(kept, run.ordered_traces().take(kept), strict=True):
            j = choices[i].boundary
            text = whole_text(trace, end) if j is None else cut_text(trace, j, solved[trace.key], run.prover, end)
            if longest is not None and len(text.prompt_ids) + len(text.completion_ids) > longest:
                choices[i] = choices[i]._replace(left_out="too_long")
            else:
                texts.append(text)
        return texts, choices

    def _fine_tune(self) -> None:
        """Fine-tunes on the selected texts: writes training.json, then model/."""
        from headway.training.sft import fine_tune

        texts = Records(self.path / "selected.jsonl", Text)
        partial = self.path / "model.partial"
        done = fine_tune(
            [(t.prompt_ids, t.completion_ids) for t in texts], self.start, self.recipe.sft, self.recipe.model, partial,
            self.path / "training", tell=lambda *n: self._tell("fine-tune", *n),
        )  # fmt: skip
        self._store.write_json("training.json", done._asdict())
        partial.replace(self.model)


def _mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else float("nan")


def star(arguments: list[str], tell: Tell) -> list[dict[str, Any]]:
    """Does the rounds of a recipe that are missing in its output_dir, and returns the metrics of all.

    Raises:
        HeadwayError: the recipe cannot be used, another one made the folder, or a round selected nothing.
    """
    recipe = Recipe(arguments)
    recipe.claim()
    made: list[dict[str, Any]] = []
    for number in range(1, recipe.star.rounds + 1):
        made.append(Round(recipe, number, tell).advance())
        lines = "".join(msgspec.json.encode(metrics).decode() + "\n" for metrics in made)
        Run(recipe.out, {}).write_text("rounds.jsonl", lines)
    return made
