"""Warm start of a backtracking model on Countdown: attempts of the built-in model, stitched, and fine-tuned on.

    python recipes/backtracking/warm_start.py --out runs/backtracking/warm

The attempts are those in the built-in model's traces: its thinking is a row of them. The result is an ordinary model
folder, with three more words in its vocabulary: what a backtrack says.
"""
