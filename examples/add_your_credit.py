"""Add a credit scheme of your own: a function of a group, and one row of a table.

    python examples/add_your_credit.py

In the package it is a file in `src/headway/credit/` and a row of `SCHEMES`; `headway train --credit decisive` and its
help text then know it. Here the row is added from outside, and the bonuses are shown for a group of two traces.
"""

import numpy as np

import headway as hw
from headway.credit import Scheme
from headway.credit.common import Bonuses, centred, throughout


def bonuses(group: hw.Group) -> Bonuses:
    """The progress of the episode that changed the value most, and nothing for the others.

        b_j = V_{j+1} - V_j  if |V_{j+1} - V_j| is the largest of the trace, else 0

    Centred over the group, for the tokens within each episode and the one that ends it. A thought that stops at once
    has one choice, and the bonus 0.
    """
    made = []
    for values, stopped in zip(group.values, group.stopped, strict=True):
        steps = np.diff(values) if len(values) > 1 else np.zeros(int(stopped))
        largest = np.abs(steps) == np.abs(steps).max(initial=0.0)
        made.append(np.where(largest, steps, 0.0))
    return throughout(centred(made))


def main() -> list[np.ndarray]:
    """Adds the scheme and gives credit to two traces."""
    hw.SCHEMES["decisive"] = Scheme(bonuses)
    group = hw.Group(
        rewards=np.array([1.0, 0.0]),
        values=[np.array([0.25, 0.25, 0.75, 1.0]), np.array([0.25, 0.5, 0.25])],
        episodes=[[hw.Episode(0, 9), hw.Episode(9, 30), hw.Episode(30, 41)], [hw.Episode(0, 12), hw.Episode(12, 40)]],
        stopped=[True, False],
        costs=[np.array([8.0, 17.0, 38.0, 49.0]), np.array([8.0, 20.0, 48.0])],
        lengths=[52, 40],
    )
    found = hw.SCHEMES["decisive"].bonuses(group)
    for i, (bonus, outcome) in enumerate(zip(found, (1.0, -1.0), strict=True)):
        tokens = hw.token_advantages(outcome, bonus, group.episodes[i], group.lengths[i], weight=1.0)
        print(
            f"trace {i}: bonuses {np.round(bonus[0], 3).tolist()}, advantages of tokens {np.unique(tokens).round(3)}"
        )
    return found


if __name__ == "__main__":
    main()
