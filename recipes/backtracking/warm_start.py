"""Warm start of a backtracking model on Countdown: attempts of the built-in model, stitched, and fine-tuned on.

    headway sample --model builtin:countdown --problems countdown-train --limit 600 --traces 16 --budget 192 \\
        --answer-tokens 16 --out runs/backtracking/base
    python recipes/backtracking/warm_start.py runs/backtracking/base --out runs/backtracking/warm

The thinking of the built-in model is a row of attempts; each becomes a trace of its own. The result is an ordinary
model folder. Its vocabulary has three more words: what a backtrack says.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import structs
from transformers import AutoModelForCausalLM
from trl import ModelConfig

from headway.core.segment import PARAGRAPH, by_markers
from headway.engines.loading import load_tokenizer, model_path
from headway.problems.countdown import Term, evaluate, outer, steps, take
from headway.procedures.sample import make_trace
from headway.procedures.select import Text, whole_text
from headway.procedures.warm_start import MARKERS, Stitching, by_continuations, longest, warm_start
from headway.runs.store import Run
from headway.text.offsets import token_at
from headway.text.prompts import FINAL_ANSWER
from headway.text.tags import ThinkTags, find_think_tags
from headway.training.config import FineTuneConfig
from headway.training.sft import fine_tune
from headway.types import Completion, Problem, Trace

WORDS = ("Backtrack to Line ", "Backtrack to beginning", "Wait, this seems off. Let's try something else.")


def expression(lines: Sequence[str], numbers: Sequence[int]) -> str | None:
    """The expression that an attempt's steps build from the numbers; None where a step is wrong or one is missing."""
    terms = tuple(Term(n, str(n)) for n in numbers)
    for line in lines:
        fits = [step for step in steps(terms) if step.line() == line]
        if not fits:
            return None
        terms = take(terms, fits[0])
    return outer(terms[0].text) if len(terms) == 1 else None


def attempts_of(trace: Trace, problem: Problem, tokenizer: Any, tags: ThinkTags) -> Iterator[Trace]:
    """The attempts in a trace of the built-in model, each as a graded trace without its opening word.

    One with a slip (a step that is wrong, a check that says the opposite, an end that is missing) is left out.
    """
    target, numbers = evaluate(problem.answer)
    for start, stop in by_markers(trace.thought):
        opening, *lines = trace.thought[start:stop].split(PARAGRAPH)
        made = expression(lines[:-2], numbers)  # after the steps come the check and the end of its paragraph
        if made is None:
            continue
        right = evaluate(made)[0] == target
        if lines[-2:] != [f"{target}? {'Yes' if right else 'No'}.", ""]:
            continue
        first, last = (token_at(trace.offsets, i) for i in (start + len(opening + PARAGRAPH), stop))
        answer = tokenizer.encode(f"{tags.close}{FINAL_ANSWER}{made}}}", add_special_tokens=False)
        whole = Completion((*trace.token_ids[first:last], *answer), "stop")
        attempt = make_trace(tokenizer, problem.id, trace.index, trace.prompt_ids, whole, tags)
        yield structs.replace(attempt, reward=float(right))


def attempts_of_run(run: Run, tokenizer: Any) -> list[Trace]:
    """The attempts in all traces of a run, by problem, each under a number of its own."""
    problems, tags = {p.id: p for p in run.problems()}, find_think_tags(tokenizer)
    ordered: Iterable[Trace] = sorted(run.traces(), key=lambda t: t.key)
    found = [a for trace in ordered for a in attempts_of(trace, problems[trace.problem_id], tokenizer, tags)]
    return [structs.replace(attempt, index=n) for n, attempt in enumerate(found)]


def with_words(model: str, out: Path) -> Any:
    """Writes the model with the words of a backtrack in its vocabulary, and returns its tokenizer."""
    tokenizer, policy = load_tokenizer(model), AutoModelForCausalLM.from_pretrained(model_path(model))
    tokenizer.add_tokens(list(WORDS))
    policy.resize_token_embeddings(len(tokenizer))
    policy.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return tokenizer


def main() -> None:
    """Stitches, fine-tunes and saves; writes warm_start.json, and stitched.txt with the first traces to read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run of the built-in model on training problems")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--marker", choices=list(MARKERS), default="explicit")
    parser.add_argument("--failed", type=int, default=4, help="most failed attempts before the right one")
    parser.add_argument("--shared", type=int, default=0, help="fewest steps shared; 0 also goes back to the beginning")
    parser.add_argument("--per-problem", type=int, default=8)
    parser.add_argument("--longest", action="store_true", help="go back to the last shared step, whatever its success")
    parser.add_argument("--max-steps", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    run = Run.load(args.run)
    tokenizer = with_words(run.settings["model"], args.out / "start")
    attempts = attempts_of_run(run, tokenizer)
    stitching = Stitching(args.marker, args.failed, args.shared, per_problem=args.per_problem, seed=args.seed)
    traces = warm_start(attempts, tokenizer, stitching, value=longest if args.longest else by_continuations(attempts))
    texts: list[Text] = [whole_text(trace, tokenizer.eos_token_id) for trace in traces]
    examples = [(text.prompt_ids, text.completion_ids) for text in texts]
    sft = FineTuneConfig(
        output_dir=str(args.out / "training"), per_device_train_batch_size=64, max_steps=args.max_steps,
        learning_rate=args.learning_rate, lr_scheduler_type="cosine", warmup_steps=20, seed=args.seed,
        activation_checkpointing=False, logging_steps=20, save_strategy="no", report_to="none",
        dataloader_pin_memory=False,
    )  # fmt: skip
    done = fine_tune(
        examples, str(args.out / "start"), sft, ModelConfig(dtype="float32"), args.out, args.out / "training",
        tell=lambda step, of: print(f"step {step} of {of}", end="\r", flush=True),
    )  # fmt: skip
    summary = {
        "attempts": len(attempts), "right": sum(a.reward == 1 for a in attempts), "traces": len(traces),
        "backtracks": sum(sum(trace.text.count(word) for word in WORDS) for trace in traces),
        "longest": max(len(prompt) + len(completion) for prompt, completion in examples),
        **structs.asdict(stitching), **done._asdict(),
    }  # fmt: skip
    (args.out / "warm_start.json").write_text(json.dumps(summary, indent=1) + "\n")
    (args.out / "stitched.txt").write_text("\n\n=====\n\n".join(trace.text for trace in traces[:50]))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
