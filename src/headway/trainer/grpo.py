"""MRT on TRL's GRPO.

`MRTTrainer` lets GRPO sample, grade and normalize, then draws branches from the policy as it stands and replaces the
advantages (B,) by those of `credit.py`, (B, T), a shape TRL's loss documents for subclasses. With a progress weight of
0 it does nothing of this and is TRL's trainer, bit for bit.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOTrainer

from headway import credit
from headway.engines.hf import HFEngine
from headway.engines.hf.compat import recording
from headway.engines.hf.prefix_cache import PrefixCache
from headway.forms import Candidates, written
from headway.prompts import find_think_tags, meta_prover, opening_of, thinking_switches
from headway.prove import ValueCurve
from headway.sample import derive_seed, make_trace
from headway.score import Known, curves_of, known_share
from headway.segment import boundaries, cut
from headway.trainer.config import MRTConfig
from headway.trainer.logs import ShareWatch, metrics, records
from headway.trainer.outcome import StopAtTokens, outcome_reward
from headway.types import (
    Branch,
    Completion,
    Episode,
    Grader,
    HeadwayError,
    Problem,
    Prompt,
    SamplingParams,
    TokenIds,
    Trace,
)
from headway.values import shrunk

TRACES_FILE = "traces.jsonl"


class MRTTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO with credit for progress.

    Args:
        grader: Grades the branches, and the outcome where no `reward_funcs` are given.
        args: An `MRTConfig`.
        candidates: The right answers whose probability is scored, with `values` likelihood and hybrid.
        train_dataset: Rows with `id`, `prompt` (a conversation) and `answer`; `dataset_of` makes it.
    """

    def __init__(
        self,
        model: Any,
        *,
        args: MRTConfig,
        train_dataset: Dataset,
        grader: Grader,
        candidates: Candidates = written,
        reward_funcs: Any = None,
        processing_class: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        **rest: Any,
    ) -> None:
        if processing_class is None:
            processing_class = AutoTokenizer.from_pretrained(
                model if isinstance(model, str) else model.config._name_or_path, padding_side="left"
            )
        self.grader = grader
        self.tags = find_think_tags(processing_class, think_open=args.think_open, think_close=args.think_close)
        if opening_of(self.tags) and not self.tags.open:
            raise HeadwayError(
                f"training opens the thinking in the prompt, so that all completions begin in it: got think_open '' "
                f"where the model's own tag is {opening_of(self.tags)!r}; leave think_open out"
            )
        self.prover = meta_prover(
            self.tags,
            suffix=args.meta_prover_suffix,
            end=args.meta_prover_end,
            branches=args.branches,
            max_tokens=args.branch_max_tokens,
        )
        self._opening = tuple(processing_class.encode(self.tags.open, add_special_tokens=False))
        self._stash: tuple[list[dict[str, Any]], list[list[int]], torch.Tensor] | None = None
        self._prefixes: dict[TokenIds, tuple[Trace, int]] = {}
        self._candidates = candidates
        self._engine: HFEngine | None = None
        self._kept: PrefixCache | None = None
        self._share = ShareWatch()
        self.generated_tokens = 0
        super().__init__(
            model,
            reward_funcs or outcome_reward(grader, processing_class, args.think_open, args.think_close),
            args=args,
            train_dataset=train_dataset,
            processing_class=processing_class,
            callbacks=[*(callbacks or []), StopAtTokens(self)],
            **rest,
        )
        self.chat_template_kwargs = {**thinking_switches(processing_class), **(args.chat_template_kwargs or {})}

    # -- the seam -------------------------------------------------------------------------------------------------

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], Any, dict[str, Any]]:
        """TRL's prompts, the thinking opened where the template does not, and trace credit's stale prefix."""
        ids, images, fields = super()._tokenize_prompts(prompts)
        if self.tags.open:
            tail = [self.processing_class.decode(i[-len(self._opening) - 2 :], skip_special_tokens=False) for i in ids]
            opened = [text.rstrip().endswith(self.tags.open.strip()) for text in tail]
            ids = [i if done else [*i, *self._opening] for i, done in zip(ids, opened, strict=True)]
        if self.model.training and self.args.credit == "trace" and self.args.progress_weight != 0:
            ids = self._with_prefixes(ids)
        return ids, images, fields

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: list[list[int]]
    ) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._stash = (inputs, completion_ids_list, rewards)
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        pays = self.model.training and self.args.progress_weight != 0
        with recording(self.accelerator.unwrap_model(self.model)) if pays else nullcontext() as recorder:
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return output
        assert self._stash is not None
        self._count_tokens(sum(len(ids) for ids in self._stash[1]))
        if recorder is not None:
            self._kept = PrefixCache.recorded(recorder)
            output["advantages"] = self._with_progress(output)
        self._stash = self._kept = None
        return output

    # -- progress -------------------------------------------------------------------------------------------------

    def _with_progress(self, output: dict[str, Any]) -> torch.Tensor:
        """The advantages with credit for progress: (B, T), or (B,) where a trace has one bonus."""
        assert self._stash is not None
        inputs, completions, gathered = self._stash
        here = slice(self.accelerator.process_index * len(inputs), (self.accelerator.process_index + 1) * len(inputs))
        local = gathered[here]
        weights = self.reward_weights.to(local.device)
        rewards = torch.where(local.isnan().all(dim=1), torch.nan, (local * weights).nansum(dim=1)).tolist()
        problems = {str(row["id"]): Problem(str(row["id"]), str(row["id"]), str(row["answer"])) for row in inputs}
        prompts = [
            tuple(ids[mask.bool()].tolist())
            for ids, mask in zip(output["prompt_ids"].cpu(), output["prompt_mask"].cpu(), strict=True)
        ]
        traces = [
            self._trace(str(row["id"]), here.start + i, prompt, ids, reward)
            for i, (row, prompt, ids, reward) in enumerate(zip(inputs, prompts, completions, rewards, strict=True))
        ]
        if self.args.credit == "trace":
            return self._trace_credit(output["advantages"], traces, problems)
        curves, branches, share = self._curves(traces, problems, self._segmenter)
        episodes = [self._segmenter(t) for t in traces]
        bonuses = self._bonuses(curves, [t.closed or t.stop == "stop" for t in traces])
        advantages = np.zeros(output["completion_ids"].shape)
        for row, ids, outcome, bonus, cuts in zip(
            advantages, completions, output["advantages"].tolist(), bonuses, episodes, strict=True
        ):
            row[: len(ids)] = credit.token_advantages(outcome, bonus, cuts, len(ids), weight=self.args.progress_weight)
        self._log_curves(traces, curves, bonuses, branches, share)
        return torch.tensor(advantages, dtype=output["advantages"].dtype, device=output["advantages"].device)

    def _trace_credit(self, outcome: torch.Tensor, traces: list[Trace], problems: dict[str, Problem]) -> torch.Tensor:
        """The outcome's advantages and one bonus each: its reward less the value of the stale prefix it started at."""
        stale, cut_at = {}, {}
        for trace in traces:
            old, end = self._prefixes[trace.prompt_ids]
            stale[trace.problem_id] = msgspec.structs.replace(_shortened(old, end), problem_id=trace.problem_id)
            # all of the old trace up to the prefix is one episode here
            cut_at[trace.problem_id] = [Episode(0, end)] if end else []
        found, branches, share = self._curves(list(stale.values()), problems, lambda t: cut_at[t.problem_id])
        curves = dict(zip(stale, found, strict=True))
        bonuses = [
            np.array(
                [credit.trace_bonus(np.nan if t.reward is None else t.reward, curves[t.problem_id].values.values[-1])]
            )
            for t in traces
        ]
        self._log_curves(traces, [curves[t.problem_id] for t in traces], bonuses, branches, share)
        added = torch.tensor(np.nan_to_num(np.concatenate(bonuses)), dtype=outcome.dtype, device=outcome.device)
        return outcome + self.args.progress_weight * added

    def _bonuses(self, curves: list[ValueCurve], stopped: list[bool]) -> list[np.ndarray]:
        """The bonus of each choice of each trace of this process, centred over its group on all processes."""
        a = self.args
        mine = [(c.values.values, c.values.stderr, s) for c, s in zip(curves, stopped, strict=True)]
        everyone: list[tuple[np.ndarray, np.ndarray, bool]] = gather_object(mine)
        result: list[np.ndarray] = []
        for start in range(0, len(everyone), self.num_generations):
            values, stderr, ended = zip(*everyone[start : start + self.num_generations], strict=True)
            result += credit.group_bonuses(
                shrunk(values, stderr) if a.value_shrinkage == "group" else values,
                ended,
                form=a.credit,
                space=a.progress_space,
                floor=a.progress_floor,
                rising=a.progress_watermark,
                clip=a.progress_clip,
                baseline=a.progress_baseline,
                scale=a.progress_scale == "group",
            )
        first = self.accelerator.process_index * len(mine)
        return result[first : first + len(mine)]

    # -- pieces ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _policy(self) -> Iterator[HFEngine]:
        """The policy as it stands, behind an engine."""
        model = self.accelerator.unwrap_model(self.model)
        if self._engine is None or self._engine.model is not model:
            self._engine = HFEngine(model, self.processing_class)
            self._known = Known(self._engine, self.prover, self.grader, self._candidates)
        training = model.training
        model.eval()
        self._engine.prefix_cache = self._kept
        try:
            with self.accelerator.autocast():
                yield self._engine
        finally:
            self._engine.prefix_cache = None
            model.train(training)

    def _curves(
        self, traces: list[Trace], problems: dict[str, Problem], segmenter: Callable[[Trace], Any]
    ) -> tuple[list[ValueCurve], list[Branch], float]:
        """The value curve of each trace, the branches it comes from, and what the known right answers carry of it."""
        seed = derive_seed(self.args.seed, "branches", self.state.global_step)
        with self._policy() as engine:
            curves, branches, scores = curves_of(
                self.args.values, engine, traces, problems, self.grader, self._known, self.prover, segmenter, seed=seed
            )
        self._count_tokens(sum(b.sampled for b in branches))
        return curves, branches, known_share(curves, scores)

    def _segmenter(self, trace: Trace) -> list[Episode]:
        a = self.args
        return cut(
            trace,
            segment=a.segment,
            min_paragraphs=a.min_paragraphs,
            episode_tokens=a.episode_tokens,
            max_episodes=a.max_episodes,
        )

    def _trace(
        self, problem_id: str, index: int, prompt: TokenIds, ids: Sequence[int], reward: float = float("nan")
    ) -> Trace:
        """A completion of TRL's as a trace; the end-of-text token is left out."""
        ended = bool(ids) and ids[-1] in self.eos_token_ids
        completion = Completion(tuple(ids[:-1] if ended else ids), "stop" if ended else "length")
        made = make_trace(self.processing_class, problem_id, index, prompt, completion, self.tags)
        return msgspec.structs.replace(made, reward=None if np.isnan(reward) else float(reward))

    def _with_prefixes(self, prompts: list[list[int]]) -> list[list[int]]:
        """Each prompt and a prefix of one trace of the old policy, cut after a random number of its episodes.

        The same for all completions of a group, on whichever process they are: seeds come from the prompt.
        """
        self._prefixes = {}
        names = {tuple(p): hashlib.sha256(repr(list(p)).encode()).hexdigest()[:16] for p in prompts}
        seeds = [derive_seed(self.args.seed, "prefix", self.state.global_step, name) for name in names.values()]
        params = SamplingParams(max_tokens=self.max_completion_length, temperature=self.temperature)
        with self._policy() as engine:
            sampled = engine.sample([Prompt.of(ids) for ids in names], params, seeds=seeds)
        longer: dict[TokenIds, list[int]] = {}
        for prompt, [completion], seed in zip(names, sampled, seeds, strict=True):
            trace = make_trace(self.processing_class, names[prompt], 0, prompt, completion, self.tags)
            end = Random(seed).choice(boundaries(self._segmenter(trace))[:-1] or [0])
            longer[prompt] = [*prompt, *trace.token_ids[:end]]
            self._prefixes[tuple(longer[prompt])] = (trace, end)
        self._count_tokens(sum(len(completion.token_ids) for [completion] in sampled))
        return [longer[tuple(p)] for p in prompts]

    # -- logs -----------------------------------------------------------------------------------------------------

    def _count_tokens(self, n: int) -> None:
        """Adds to the tokens sampled so far on all processes, branches and prefixes included."""
        self.generated_tokens += sum(gather_object([n]))
        self._metrics["train"]["mrt/generated_tokens"] = [float(self.generated_tokens)]

    def _log_curves(
        self,
        traces: list[Trace],
        curves: list[ValueCurve],
        bonuses: list[np.ndarray],
        branches: list[Branch],
        share: float,
    ) -> None:
        """The step's metrics to TRL's log, and the traces with their values to a file."""
        for name, value in metrics(traces, curves, bonuses, branches, share).items():
            mine = torch.tensor([value], device=self.accelerator.device, dtype=torch.float32)
            everyones = self.accelerator.gather(mine).nanmean().item()
            self._metrics["train"][f"mrt/{name}"].append(everyones)
            if name == "value/known_share" and self.args.values == "hybrid":
                self._share.tell(everyones)
        lines = gather_object(records(self.state.global_step, traces, curves, bonuses))
        if self.accelerator.is_main_process:
            folder = Path(self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / TRACES_FILE).open("ab") as out:
                out.write(b"".join(msgspec.json.encode(record) + b"\n" for record in lines))


def _shortened(trace: Trace, end: int) -> Trace:
    """A trace cut at a boundary, as if it had run out of budget there."""
    text = trace.text if end == len(trace.token_ids) else trace.text[: trace.offsets[end]]
    return msgspec.structs.replace(
        trace, token_ids=trace.token_ids[:end], text=text, offsets=trace.offsets[:end], thinking=end, closed=False
    )
