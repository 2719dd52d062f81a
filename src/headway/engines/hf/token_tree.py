"""Token trees: what several prompts and their continuations add to a shared prefix, as one row of a forward."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch.nn.utils.rnn import pad_sequence

from headway.engines.hf.prefix_cache import Request
from headway.types import TokenIds

LOOKAHEAD = 3  # tokens of a continuation that one forward computes
MIN_RELATIVE_LOGPROB = -math.log(1e4)  # a continuation less likely than this, relative to the best, is dropped


@dataclass(frozen=True)
class TokenTree:
    """The tokens after one shared prefix as nodes, parents before children; a node is one token in one context."""

    tokens: Int[np.ndarray, " N"]
    parent: Int[np.ndarray, " N"]  # -1 for the first token after the prefix
    position: Int[np.ndarray, " N"]
    shared: Int[np.ndarray, " N"]  # how much of the prefix the node attends to
    depth: Int[np.ndarray, " N"]  # how many tokens of a continuation come before it, -1 in a prompt
    prompt: Int[np.ndarray, " N"]  # the number of its request
    ends: dict[int, list[int]]  # [place][k]: the node that ends continuation k of the request at `place`

    @cached_property
    def sees(self) -> Bool[np.ndarray, "N N"]:
        """Whether the column's node is the row's node or one of its ancestors."""
        seen = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parent):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen

    @cached_property
    def empty(self) -> list[int]:
        """The nodes of prompts that end a continuation: one without tokens."""
        return [node for nodes in self.ends.values() for node in nodes if self.depth[node] < 0]

    def frontier(self, logprob: Float[np.ndarray, " N"], depth: int) -> Int[np.ndarray, " M"]:
        """The nodes to compute next: the likely ones at `depth` and those below them; at depth 0 the prompts too."""
        if depth == 0:
            return np.flatnonzero(self.depth < LOOKAHEAD)
        heads = np.flatnonzero((self.depth == depth) & np.isfinite(logprob))
        best = np.full(len(self.ends), -np.inf)
        np.maximum.at(best, self.prompt[heads], logprob[heads])
        chosen = np.zeros(len(self.tokens), dtype=bool)
        chosen[heads] = logprob[heads] >= best[self.prompt[heads]] + MIN_RELATIVE_LOGPROB
        for below in range(depth + 1, depth + LOOKAHEAD):
            nodes = np.flatnonzero(self.depth == below)
            chosen[nodes] = chosen[self.parent[nodes]]
        return np.flatnonzero(chosen)


def build(
    requests: Sequence[Request], continuations: Sequence[Sequence[TokenIds]] | Mapping[int, Sequence[TokenIds]]
) -> TokenTree:
    """The tree of requests with one shared prefix; continuations of a prompt share the tokens they begin with.

    An empty continuation ends at the last token of its prompt.
    """
    nodes: list[tuple[int, ...]] = []
    ends: dict[int, list[int]] = {}
    for number, request in enumerate(requests):
        root = -1
        for position, token in enumerate(request.own, start=request.shared):
            nodes.append((token, root, position, request.shared, -1, number))
            root = len(nodes) - 1
        children: dict[tuple[int, int], int] = {}
        ends[request.place] = []
        for continuation in continuations[request.place]:
            node = root
            for depth, token in enumerate(continuation):
                if (node, token) not in children:
                    children[node, token] = len(nodes)
                    nodes.append((token, node, len(request.prompt) + depth, request.shared, depth, number))
                node = children[node, token]
            ends[request.place].append(node)
    tokens, parent, at, shared, deep, prompt = np.array(nodes, dtype=np.int64).reshape(-1, 6).T
    return TokenTree(tokens, parent, at, shared, deep, prompt, ends)


def as_rows(nodes: Sequence[np.ndarray]) -> Int[np.ndarray, "R N"]:
    """Some nodes of each tree as rows, -1 where a row has no more."""
    return pad_sequence([torch.from_numpy(some) for some in nodes], batch_first=True, padding_value=-1).numpy()


def layout(
    trees: Sequence[TokenTree], width: int, done: Int[np.ndarray, "R C"], now: Int[np.ndarray, "R N"]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The nodes `now` of each tree: tokens and what each attends to, (R, N) and (R, N, width + C + N), and positions.

    They come after a shared prefix of at most `width` tokens and the nodes `done`; both as `as_rows` makes them.
    """
    ids, position = np.zeros((2, *now.shape), dtype=np.int64)
    columns = np.concatenate([done, now], axis=1)
    own = np.arange(now.shape[1])
    sees = np.zeros((*now.shape, width + columns.shape[1]), dtype=bool)
    sees[:, own, width + done.shape[1] + own] = True  # a row that attends to nothing would be NaN
    for row, tree in enumerate(trees):
        nodes = now[row, now[row] >= 0]
        n = len(nodes)
        ids[row, :n], position[row, :n] = tree.tokens[nodes], tree.position[nodes]
        sees[row, :n, :width] = np.arange(width) < tree.shared[nodes, None]
        sees[row, :n, width:] |= tree.sees[nodes[:, None], columns[row]] & (columns[row] >= 0)
    return torch.from_numpy(ids), torch.from_numpy(sees), torch.from_numpy(position)
