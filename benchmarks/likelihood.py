"""What a likelihood counts on a real tokenizer, against branches.

    python benchmarks/likelihood.py --model MODEL [--out results/likelihood/NAME.json]

The thinking states the answer, and the meta-prover is forced to give it. For each answer: the fraction of correct
branches, and the likelihood counted in three ways: of the reference alone with an end that is a token of its own; of
all its forms with such ends; and as Headway counts, of all forms with any token that holds the last characters and an
end. `counted` are the branches that wrote what the third counts: their fraction estimates it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headway.core.stats import wilson
from headway.engines import hf
from headway.engines.loading import model_path
from headway.problems.graders import load_grader
from headway.procedures.forced import forced_answers
from headway.procedures.prove import Prover
from headway.procedures.sample import make_trace
from headway.text.prompts import meta_prover
from headway.text.tags import ThinkTags
from headway.types import Completion, Problem

ANSWERS = ["42", "\\frac{1}{2}", "0.5", "2^{10}", "(1,2)", "\\sqrt{2}", "\\frac{\\sqrt{3}}{2}", "\\text{Tuesday}"]
TAGS = ThinkTags("<think>\n", "</think>")
QUESTION = "What is the answer? Put it in \\boxed{}."
THINKING = "After all steps the answer is ${}$. I check it again, and it is right: the answer is ${}$."


def measure(model: str, branches: int, max_tokens: int, seed: int) -> list[dict[str, Any]]:
    """A row for each answer."""
    engine, grader = hf.load(model_path(model), dtype="float32"), load_grader("math-verify")
    prover = meta_prover(TAGS, branches=branches, max_tokens=max_tokens)
    rows = []
    try:
        for answer in ANSWERS:
            problem = Problem(answer, QUESTION, answer)
            text = engine.tokenizer.apply_chat_template(
                [{"role": "user", "content": QUESTION}], add_generation_prompt=True, tokenize=False
            )
            prompt = tuple(engine.tokenizer.encode(text + TAGS.open, add_special_tokens=False))
            thinking = THINKING.format(answer, answer)
            ids = tuple(engine.tokenizer.encode(thinking, add_special_tokens=False))
            trace = make_trace(engine.tokenizer, answer, 0, prompt, Completion(ids, "length"), TAGS)
            proving = Prover(engine, prover, {answer: problem}, grader=grader, segmenter=lambda t: [])
            [at] = forced_answers(trace, prover, engine.tokenizer, lambda t: [])
            at = at._replace(position=trace.thinking)  # after the thinking, not before it
            forms = proving.forms(at)
            [logprobs] = engine.logprobs([at.prompt], [forms.continuations], ends=forms.ends)
            counted = dict(zip(forms.continuations, np.exp(logprobs), strict=True))
            reference = next(c for c in forms.continuations if not c.rest)
            drawn = proving.branches_at([at], seed=seed, mark_known=True)
            correct = [b for b in drawn if b.reward == 1]
            low, high = wilson(len(correct), len(drawn))
            rows.append({
                "answer": answer,
                "branches": len(drawn), "correct": len(correct), "ci95": [low, high],
                "reference_own_end": float(counted[reference]),
                "forms_own_end": float(sum(p for c, p in counted.items() if not c.rest)),
                "likelihood": float(sum(counted.values())),
                "forms": len(forms.answers),
                "counted": sum(b.known for b in correct),
                "melted": [c.rest for c in sorted(counted, key=counted.__getitem__) if c.rest and counted[c] > 0.01],
                "wrote": sorted({b.text.split("}\n")[0][:24] for b in correct})[:6],
            })  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    finally:
        grader.close()
    return rows


def main() -> None:
    """Prints a line for each answer; writes JSON to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--branches", type=int, default=48)
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(args.model, args.branches, args.max_tokens, args.seed)
    if args.out:
        name = args.out.stem
        command = (
            f"python benchmarks/likelihood.py --model {name} --branches {args.branches} --max-tokens {args.max_tokens}"
        )
        args.out.parent.mkdir(parents=True, exist_ok=True)
        content = {"command": f"{command} --seed {args.seed} --out results/likelihood/{name}.json", "answers": rows}
        args.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
