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

import json
from typing import Any, Literal

import msgspec

from headway.core.star import RULES, Choice
from headway.procedures.sample import TraceKey, derive_seed
from headway.procedures.select import (
    Candidate,
    Text,
    choose,
    cut_text,
    fresh_rounds,
    selection_metrics,
    solutions,
    whole_text,
    without_solution,
)
from headway.runs.measure import Measurement
from headway.runs.open_run import Tell
from headway.runs.star_recipe import Recipe
from headway.runs.store import Records, Run
from headway.types import Branch, HeadwayError


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
        rule, settings = RULES[self.recipe.star.rule], self.recipe.settings(self.source, seed)
        problems = self.recipe.problems
        with Measurement.create(self.path / "run", settings, self._tell, problems=problems) as run:
            run.sample()
            if rule.needs_values:
                run.prove()
            candidates = _candidates(run)
            choices = choose(rule, candidates, budget=settings.whole)
            answers = self._solutions(run, candidates, choices, seed) if rule.cuts else []
            solved = solutions(answers, max_tokens=settings.sampling.answer_tokens)
            choices = without_solution(candidates, choices, solved)
            texts, choices = self._texts(run, choices, solved)
        metrics = {
            "round": self.number, "rule": self.recipe.star.rule, "sampled_from": self.source, "start": self.start,
            **selection_metrics(candidates, choices, texts, answers),
        }  # fmt: skip
        if not texts:
            reasons = ", ".join(f"{n} {reason}" for reason, n in metrics["left_out"].items())
            raise HeadwayError(
                f"round {self.number}: no text was selected from {len(candidates)} traces ({reasons}); take easier "
                "problems, more traces, a larger budget or another rule, or look at the traces with "
                f"`headway report --out {self.path / 'run'}`"
            )
        self._store.write_text("selected.jsonl", "".join(msgspec.json.encode(t).decode() + "\n" for t in texts))
        self._store.write_json("selection.json", metrics)

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


def _candidates(run: Measurement) -> list[Candidate]:
    """The traces of a run as numbers, by problem and index."""
    table = run.table()
    return [
        Candidate((problem, index), outcome, ending.stop == "stop", int(tokens), curve)
        for problem, index, outcome, ending, tokens, curve in zip(
            table.problems, table.indices, table.outcomes, run.ordered_traces().read_as(Ending),
            table.tokens + table.forced, table.curves, strict=True,
        )
    ]  # fmt: skip


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
