"""Measure traces that you have, of any model: a pandas frame in, accuracy at every budget and regret out.

    python examples/measure_your_traces.py

The first argument of `measure` is the meta-prover: the model that answers at each boundary of each trace. Here it is
the scripted engine with known success probabilities, so that the example needs no weights and no torch. Give a folder,
a hub name, or a server (`engine="api", base_url=...`) for your own.
"""

import pandas as pd

import headway

TRACES = pd.DataFrame(
    {
        "prompt": ["What is 12 * 12?"] * 2 + ["What is 7 + 8?"] * 2,
        "completion": [
            "<think>12 * 10 = 120.\n\n12 * 2 = 24.\n\nThat makes 144.\n\nWait: 120 + 24 = 144.</think>\\boxed{144}",
            "<think>12 * 12 is 124.\n\nHm.\n\nYes.\n\nWait, or 144? No.</think>\\boxed{124}",
            "<think>7 + 8 = 15.</think>\\boxed{15}",
            "<think>Seven and eight.\n\nCount on.\n\n15.\n\nAlternatively, 7 + 7 + 1.</think>\\boxed{15}",
        ],
        "answer": ["144", "144", "15", "15"],
    }
)


def same_number(answer: str, reference: str) -> bool:
    """A grader of your own: a function of the answer and the reference answer."""
    return answer.strip() == reference.strip()


def main() -> None:
    """Measures the traces and shows the result as frames."""
    result = headway.measure("scripted", completions=TRACES, author="my-model", grader=same_number, branches=8)
    print(result)
    estimates = result.frame()
    print(estimates[estimates.quantity == "budget_curve"][["budget", "value", "stderr", "n_problems"]].to_string())
    print(result.traces()[["problem", "index", "outcome", "tokens", "episodes", "regret"]].to_string())
    # one trace by hand: boundaries at 10, 40 and 70 tokens, right with probability .2, .6 and .9
    print("regret of one trace up to 100 tokens:", headway.regret([10, 40, 70], [0.2, 0.6, 0.9], 100))


if __name__ == "__main__":
    main()
