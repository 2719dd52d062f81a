"""Trees of tokens below a trunk: what several prompts and their continuations add to it, as rows of one forward."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from headway.engines.trunks import Request
from headway.types import TokenIds

ENTRIES = 2**26  # of a mask, or of the logits, that a forward may make: 256 MiB in float32
MOST_PADDED = 1.25  # how much more than the tokens needed a batch may compute
WAVE = 3  # tokens of a continuation that a forward goes on
FAR = math.log(1e4)  # below the likeliest of its prompt, a continuation is not followed


@dataclass(frozen=True)
class Tree:
    """The nodes below one trunk, parents before children; a node is one token in one context.

    `parent` is -1 for the first token after the trunk, `depth` how many tokens of a continuation come before (-1 in a
    prompt), `prompt` numbers the requests, and `ends[place][k]` is the node that ends continuation k of the one at
    `place`.
    """

    tokens: Int[np.ndarray, " N"]
    parent: Int[np.ndarray, " N"]
    position: Int[np.ndarray, " N"]
    shared: Int[np.ndarray, " N"]
    depth: Int[np.ndarray, " N"]
    prompt: Int[np.ndarray, " N"]
    ends: dict[int, list[int]]

    @cached_property
    def sees(self) -> Bool[np.ndarray, "N N"]:
        """Whether the column's node is the row's or one of its ancestors."""
        seen = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parent):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen

    def due(self, logprob: Float[np.ndarray, " N"], depth: int) -> Int[np.ndarray, " M"]:
        """The nodes of a wave: of those at its first depth the likely ones, and all below them; first, the prompts."""
        if depth == 0:
            return np.flatnonzero(self.depth < WAVE)
        heads = np.flatnonzero((self.depth == depth) & np.isfinite(logprob))
        best = np.full(len(self.ends), -np.inf)
        np.maximum.at(best, self.prompt[heads], logprob[heads])
        due = np.zeros(len(self.tokens), dtype=bool)
        due[heads] = logprob[heads] >= best[self.prompt[heads]] - FAR
        for below in range(depth + 1, depth + WAVE):
            nodes = np.flatnonzero(self.depth == below)
            due[nodes] = due[self.parent[nodes]]
        return np.flatnonzero(due)


def grow(
    requests: Sequence[Request], continuations: Sequence[Sequence[TokenIds]] | Mapping[int, Sequence[TokenIds]]
) -> Tree:
    """The tree of some requests of one trunk. Continuations of a prompt share the tokens they begin with."""
    nodes: list[tuple[int, ...]] = []
    ends: dict[int, list[int]] = {}
    for number, request in enumerate(requests):
        root = -1
        for position in range(request.shared, len(request.prompt)):
            nodes.append((request.prompt[position], root, position, request.shared, -1, number))
            root = len(nodes) - 1
        below: dict[tuple[int, int], int] = {}
        ends[request.place] = []
        for continuation in continuations[request.place]:
            node = root
            for depth, token in enumerate(continuation):
                if (node, token) not in below:
                    below[node, token] = len(nodes)
                    nodes.append((token, node, len(request.prompt) + depth, request.shared, depth, number))
                node = below[node, token]
            ends[request.place].append(node)
    tokens, parent, at, shared, deep, prompt = np.array(nodes, dtype=np.int64).reshape(-1, 6).T
    return Tree(tokens, parent, at, shared, deep, prompt, ends)


def aligned(nodes: Sequence[np.ndarray]) -> Int[np.ndarray, "R N"]:
    """Some nodes of each tree as rows, -1 where a row has no more."""
    rows = np.full((len(nodes), max(map(len, nodes))), -1)
    for row, some in zip(rows, nodes, strict=True):
        row[: len(some)] = some
    return rows


def layout(
    trees: Sequence[Tree], width: int, done: Int[np.ndarray, "R C"], now: Int[np.ndarray, "R N"]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The nodes `now` of each tree: tokens and positions, (R, N), and what each sees, (R, N, width + C + N).

    They come after a trunk of at most `width` tokens and the nodes `done`; both as `aligned` has them.
    """
    ids, place = np.zeros((2, *now.shape), dtype=np.int64)
    columns = np.concatenate([done, now], axis=1)
    own = np.arange(now.shape[1])
    sees = np.zeros((*now.shape, width + columns.shape[1]), dtype=bool)
    sees[:, own, width + done.shape[1] + own] = True  # a row that sees nothing would be NaN
    for row, tree in enumerate(trees):
        nodes = now[row, now[row] >= 0]
        n = len(nodes)
        ids[row, :n], place[row, :n] = tree.tokens[nodes], tree.position[nodes]
        sees[row, :n, :width] = np.arange(width) < tree.shared[nodes, None]
        sees[row, :n, width:] |= tree.sees[nodes[:, None], columns[row]] & (columns[row] >= 0)
    return torch.from_numpy(ids), torch.from_numpy(place), torch.from_numpy(sees)


def additive(sees: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What each query sees as the mask that is added to its attention: (R, 1, queries, keys)."""
    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    return mask.masked_fill_(~sees, torch.finfo(dtype).min)[:, None]
