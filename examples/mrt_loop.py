"""Meta Reinforcement Fine-Tuning in one loop: sample, cut, value, credit, one optimizer step.

    python examples/mrt_loop.py [--steps 5] [--credit episode]

The whole method on the built-in model and its task, without a trainer: what `headway train` does on TRL, with one
update a step, no clipping and no reference model. Names end in the
axes of their arrays: G traces of a problem, T tokens.
"""

import argparse

import numpy as np
import torch

import headway as hw

GROUP = 8  # traces of a problem
PROBLEMS_PER_STEP = 4
SAMPLING = hw.Sampling(traces=GROUP, budget=128, answer_tokens=16)
CUTTING = hw.Cutting("markers", max_episodes=6)


def outcome_advantages(rewards_G: np.ndarray) -> np.ndarray:
    """GRPO's advantages: rewards centred in their group and divided by its standard deviation; NaN counts as 0."""
    known = rewards_G[~np.isnan(rewards_G)]
    spread = known.std(ddof=1) if len(known) > 1 else 0.0
    return np.nan_to_num((rewards_G - known.mean()) / (spread + 1e-4)) if len(known) else np.zeros(len(rewards_G))


def token_logprobs(model: torch.nn.Module, trace: hw.Trace) -> torch.Tensor:
    """The log-probability of each token of a completion under the model, (T,)."""
    ids = torch.tensor([trace.prompt_ids + trace.token_ids])
    logits = model(input_ids=ids).logits[0, len(trace.prompt_ids) - 1 : -1]
    return logits.log_softmax(dim=-1).gather(-1, ids[0, len(trace.prompt_ids) :, None]).squeeze(-1)


def group_of(traces: list[hw.Trace], curves: list[hw.ValueCurve]) -> hw.Group:
    """What a credit scheme sees of the traces of one problem."""
    return hw.Group(
        rewards=np.array([np.nan if t.reward is None else t.reward for t in traces]),
        values=[c.values.values for c in curves],
        episodes=[hw.cut(t, CUTTING, SAMPLING.budget) for t in traces],
        # a thought that ended by itself has a token that stops it
        stopped=[t.closed or t.stop == "stop" for t in traces],
        costs=[c.tokens for c in curves],
        lengths=[len(t.token_ids) for t in traces],
        budget=float(SAMPLING.budget),
        decay=0.5,
    )


def train(steps: int, credit: str, *, weight: float = 1.0, learning_rate: float = 1e-4, seed: int = 0) -> list[float]:
    """Trains the built-in model in memory and returns the mean reward of each step."""
    engine = hw.load_model("builtin:countdown")
    model = engine.model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    problem_set = hw.load_problems("countdown-train", limit=steps * PROBLEMS_PER_STEP)
    grader = hw.load_grader(problem_set.grader)
    tags = hw.find_think_tags(engine.tokenizer)
    forcing = hw.meta_prover(tags, branches=4, max_tokens=SAMPLING.answer_tokens)
    by_id = {problem.id: problem for problem in problem_set.problems}
    prover = hw.Prover(
        engine, forcing, by_id, grader=grader, segmenter=lambda trace: hw.cut(trace, CUTTING, SAMPLING.budget)
    )
    rewards = []
    for step in range(steps):
        batch = problem_set.problems[step * PROBLEMS_PER_STEP : (step + 1) * PROBLEMS_PER_STEP]

        # sample: GROUP graded traces of each problem
        sampling = hw.Sampling(GROUP, SAMPLING.budget, SAMPLING.answer_tokens, seed=seed + step)
        traces = [t for chunk in hw.sample(engine, batch, grader, tags, sampling) for t in chunk]

        # value: the probability that the model is right if it has to answer at each boundary, here by likelihood
        curves, _, _ = prover.curves("likelihood", traces, seed=seed + step)

        # credit: the outcome's advantage, and a bonus for what each episode changed
        loss, n_tokens = torch.zeros(()), 0
        for first in range(0, len(traces), GROUP):
            group = group_of(traces[first : first + GROUP], curves[first : first + GROUP])
            bonuses_G = hw.SCHEMES[credit].bonuses(group)
            for i, outcome in enumerate(outcome_advantages(group.rewards)):
                trace = traces[first + i]
                advantages_T = hw.token_advantages(
                    outcome, bonuses_G[i], group.episodes[i], len(trace.token_ids), weight=weight
                )
                logprobs_T = token_logprobs(model, trace)
                loss = loss - (torch.tensor(advantages_T, dtype=logprobs_T.dtype) * logprobs_T).sum()
                n_tokens += len(trace.token_ids)

        # one optimizer step, each token alike
        optimizer.zero_grad()
        (loss / n_tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

        rewards.append(float(np.mean([t.reward for t in traces])))
        progress = np.concatenate([hw.progress(c.values.values) for c in curves])
        print(f"step {step}: reward {rewards[-1]:.3f}, progress of an episode {np.nanmean(progress):+.4f}")
    return rewards


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--credit", default="episode", choices=["episode", "to_go", "lambda", "regret", "brpo", "mig"])
    arguments = parser.parse_args()
    train(arguments.steps, arguments.credit)
