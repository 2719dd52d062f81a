"""Credit: from outcome and progress to the advantage of each token.

A trace is a row of choices: at each boundary the policy chooses the next episode, and at the last one, if the thought
ended by itself, it chooses to stop. `bonuses` are the returns of these choices under one of three forms of credit;
`centred` subtracts a baseline that every choice pays, the stop too; `token_advantages` gives each choice's bonus to
the tokens that made it and adds the outcome's advantage to all tokens.

A bonus goes here, after the outcome's normalization, and never into the reward: what a whole group shares, such as
the value of a common prefix, cancels there (docs/concepts.md).
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from headway.choices import lookup
from headway.core.progress import Space, in_space, progress, watermark
from headway.types import Episode

Form = Literal["trace", "episode", "to_go"]
Baseline = Literal["group", "trace", "none"]


def group_advantages(
    rewards: Float[np.ndarray, " G"], *, scale: bool = True, eps: float = 1e-4
) -> Float[np.ndarray, " G"]:
    """The outcome advantages of a group as GRPO has them (TRL's default): centred, over the standard deviation.

        A_i = (r_i - mean r) / (std r + eps)

    The deviation has n - 1 below it. NaN rewards are left out and get 0.
    """
    known = rewards[~np.isnan(rewards)]
    if len(known) == 0:
        return np.zeros(len(rewards))
    deviation = known.std(ddof=1) if len(known) > 1 else 0.0
    return np.nan_to_num((rewards - known.mean()) / (deviation + eps if scale else 1.0))


def episode_bonuses(values: Float[np.ndarray, " J"], *, stopped: bool) -> Float[np.ndarray, " choices"]:
    """Its own progress for each episode, and 0 for the decision to stop.

        b_j = V_{j+1} - V_j,    b_stop = 0

    With weight alpha, its expected gradient is that of

        alpha * E_{c ~ pi_old} [ sum_j E_{z_j ~ pi(.|c_j)} [ r_prg(z_j; c_j) ] ],    r_prg(stop; c) = 0

    at pi = pi_old: the bonus of the paper's MRT objective (its Eq. l_MRT), contexts from the old policy. Greedy: an
    episode is paid for what it changes itself. Called "online" in the authors' v0.1.
    """
    return _with_stop(progress(values), stopped)


def to_go_bonuses(values: Float[np.ndarray, " J"], *, stopped: bool) -> Float[np.ndarray, " choices"]:
    """The progress from each choice to the end of the thought, and 0 for the decision to stop.

        b_j = V_K - V_j = sum_{i >= j} r_i,    b_stop = 0

    With weight alpha, its expected gradient is that of alpha * E_{z ~ pi}[ V_K ]: V_j is only a baseline, so the
    objective stays about the end of the thought (as in VinePPO, arXiv:2410.01679).
    """
    return _with_stop(values[-1] - values[:-1], stopped)


def trace_bonus(reward: float, prefix_value: float) -> float:
    """One bonus for a whole completion that starts at a prefix of an old trace (the paper's RL form).

        b = r - V_prefix

    With weight alpha, its expected gradient is that of alpha * E_{z ~ pi(.|prefix)}[ r ]: the termination baseline
    V_prefix replaces the group's mean. Called "offline" in the authors' v0.1.
    """
    return reward - prefix_value


def _with_stop(bonuses: Float[np.ndarray, " K"], stopped: bool) -> Float[np.ndarray, " choices"]:
    return np.append(bonuses, 0.0) if stopped else bonuses


def centred(bonuses_G: Sequence[Float[np.ndarray, " _"]]) -> list[Float[np.ndarray, " _"]]:
    """Each choice's bonus less the mean bonus of the *other* traces of its group at the same boundary.

    Where no other trace got that far, the mean over all choices of the others; 0 where they made none. A baseline
    that does not depend on the choice leaves the expected gradient as it is, if every choice at the boundary pays
    it. So the stop pays too: it carries 0 - baseline, and without that each further episode would be charged a
    hidden fee (a length penalty). NaN bonuses stay NaN and are left out of the means.
    """
    baselines = _others_mean(bonuses_G)
    return [b - baselines[i, : len(b)] for i, b in enumerate(bonuses_G)]


def centred_by_trace(bonuses_G: Sequence[Float[np.ndarray, " _"]]) -> list[Float[np.ndarray, " _"]]:
    """Each choice's bonus less a mean of its own trace's *earlier* ones and of the other traces at its boundary.

        b_j = w_j own_j + (1 - w_j) others_j,    own_j = sum_{i < j} 2^i r_i / sum_{i < j} 2^i,    w_j = min(1, j / S)

    The later a choice, the more its own trace tells of it; S is the number of choices of the longest other trace (the
    baseline of BRPO, arXiv:2505.13438, which has a fixed number of budgets for S, for the progress of episodes). It
    depends on the prefix and on other traces only, and the stop pays it, so the expected gradient stays as it is. For
    `episode_bonuses`: to-go bonuses tell of the trace's end, so their earlier ones would not do.
    """
    others = _others_mean(bonuses_G)
    result = []
    for i, bonuses in enumerate(bonuses_G):
        longest = max((len(b) for k, b in enumerate(bonuses_G) if k != i), default=1)
        known = ~np.isnan(bonuses)
        # halves of the sums so far instead of doubled weights: the same ratio, and no number that grows
        own, weight, baseline = 0.0, 0.0, np.zeros(len(bonuses))
        for j in range(len(bonuses)):
            share = min(1.0, j / max(longest, 1)) if weight > 0 else 0.0
            baseline[j] = share * (own / weight if weight > 0 else 0.0) + (1 - share) * others[i, j]
            own = own / 2 + (bonuses[j] if known[j] else 0.0)
            weight = weight / 2 + float(known[j])
        result.append(bonuses - baseline)
    return result


def _others_mean(bonuses_G: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "G choices"]:
    """The mean bonus of the other traces at each boundary, or over all their choices where none got that far."""
    G, width = len(bonuses_G), max((len(b) for b in bonuses_G), default=0)
    table = np.full((G, width), np.nan)
    for row, bonuses in zip(table, bonuses_G, strict=True):
        row[: len(bonuses)] = bonuses
    known = ~np.isnan(table)
    sums, counts = np.where(known, table, 0.0), known.astype(int)
    others_sum, others_n = sums.sum(axis=0) - sums, counts.sum(axis=0) - counts
    all_sum = sums.sum() - sums.sum(axis=1, keepdims=True)
    all_n = counts.sum() - counts.sum(axis=1, keepdims=True)
    everywhere = all_sum / np.maximum(all_n, 1)
    return np.where(others_n > 0, others_sum / np.maximum(others_n, 1), everywhere)


def scaled(bonuses_G: Sequence[Float[np.ndarray, " _"]], *, eps: float = 1e-4) -> list[Float[np.ndarray, " _"]]:
    """Bonuses over the standard deviation of all the choices of the group, the stops included.

    Changes the length of the group's gradient, not its direction; groups then weigh alike, as GRPO's scaling does.
    """
    everything = np.concatenate([np.empty(0), *bonuses_G])
    known = everything[~np.isnan(everything)]
    deviation = known.std(ddof=1) if len(known) > 1 else 0.0
    return [b / (deviation + eps) for b in bonuses_G]


def group_bonuses(
    values_G: Sequence[Float[np.ndarray, " _"]],
    stopped_G: Sequence[bool],
    *,
    form: Form = "episode",
    space: Space = "prob",
    floor: float = 0.01,
    rising: bool = False,
    clip: float | None = None,
    baseline: Baseline = "group",
    scale: bool = False,
) -> list[Float[np.ndarray, " _"]]:
    """The bonuses of a group's choices from its values, by the functions above in their order.

    Values on the scale of `space`, only new maxima if `rising` (`watermark`), bonuses of the `form`, each within
    +-`clip`, less the baseline, over the group's deviation if `scale`.
    """
    bonuses_of = lookup(FORMS, form, "credit")
    paid = (in_space(v, space, floor=floor) for v in values_G)
    bonuses = [bonuses_of(watermark(v) if rising else v, stopped=s) for v, s in zip(paid, stopped_G, strict=True)]
    if clip is not None:
        bonuses = [np.clip(b, -clip, clip) for b in bonuses]
    bonuses = lookup(BASELINES, baseline, "progress_baseline")(bonuses)
    return scaled(bonuses) if scale else bonuses


FORMS: dict[str, Callable[..., np.ndarray]] = {"episode": episode_bonuses, "to_go": to_go_bonuses}
BASELINES: dict[str, Callable[[list[np.ndarray]], list[np.ndarray]]] = {
    "group": centred,
    "trace": centred_by_trace,
    "none": lambda bonuses: bonuses,
}


def token_advantages(
    outcome: float,
    bonuses: Float[np.ndarray, " choices"],
    episodes: Sequence[Episode],
    n_tokens: int,
    *,
    weight: float,
) -> Float[np.ndarray, " T"]:
    """The advantage of each token of a completion.

        A_t = outcome + weight * b_j     for the tokens t of episode j
        A_t = outcome + weight * b_stop  for the first token after the thinking, with which the policy stops
        A_t = outcome                    for the answer

    All tokens of an episode carry its bonus undivided: log pi(z_j) is the sum over its tokens. A NaN bonus (no value
    known) adds nothing. Weight 0 gives the outcome, bit for bit.

    Raises:
        ValueError: there are not as many bonuses as episodes, or one more (the stop), or tokens are missing.
    """
    end = episodes[-1].stop if episodes else 0
    stopped = len(bonuses) == len(episodes) + 1
    if not (stopped or len(bonuses) == len(episodes)) or end + stopped > n_tokens:
        raise ValueError(
            f"got {len(bonuses)} bonuses for {len(episodes)} episodes that end at token {end} of {n_tokens}; expected "
            "one an episode, and one more for a stop that has a token"
        )
    advantages = np.full(n_tokens, outcome)
    if weight == 0:
        return advantages
    ranges = [*episodes, Episode(end, end + 1)] if stopped else episodes
    for (start, stop), bonus in zip(ranges, bonuses, strict=True):
        if not np.isnan(bonus):
            advantages[start:stop] += weight * bonus
    return advantages
