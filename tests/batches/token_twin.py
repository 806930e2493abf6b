"""Tokens in plain numpy, one cell at a time, written from the definitions in the documentation of `annfeed.Tokens`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from annfeed import Tokens
from annfeed.order.random import derive_key, scattered

#: The stream of an epoch's key from which rows draw, and the streams of a row.
ROWS, CHOICE, ORDER, ZEROS, BINS = 3, 0, 1, 2, 3


class Draws:
    """What a cell draws in an epoch, by counter."""

    def __init__(self, seed: int, epoch: int, row: int, stream: int) -> None:
        self.key = derive_key(seed, epoch, ROWS, row, stream)

    def at(self, counter: Any) -> Any:
        return scattered(np.atleast_1d(counter).astype(np.uint64) + np.uint64(1), self.key)

    def below(self, counter: int, n: int) -> int:
        return int(self.at(counter)[0]) * int(n) >> 64


def digits(x: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """scGPT's: borders at the quantiles 0 to 1; the two ways to digitize, between which a value's bin is drawn."""
    borders = np.quantile(x, np.linspace(0, 1, bins - 1))
    return np.digitize(x, borders, right=True), np.digitize(x, borders)


def twin_row(
    x: np.ndarray, tokens: Tokens, total: float, names: list[str], seed: int, epoch: int, row: int
) -> tuple[list[int], list[float], int]:
    """Tokens and values of a cell, and how many of its genes are expressed. ``total`` is over all genes."""
    n_vars = len(x)
    ids = {g: g for g in range(n_vars)}
    if tokens.vocabulary is not None:
        ids = {g: tokens.vocabulary[names[g]] for g in range(n_vars) if names[g] in tokens.vocabulary}
    scale = dict.fromkeys(range(n_vars), 1.0)
    if isinstance(tokens.scale, dict):
        scale = {g: tokens.scale[names[g]] for g in range(n_vars) if names[g] in tokens.scale}
    elif tokens.scale is not None:
        scale = dict(enumerate(tokens.scale))
    genes = [g for g in range(n_vars) if g in ids and g in scale]
    expressed = np.array([g for g in genes if x[g] > 0], dtype=np.int64)
    score = np.array([float(x[g]) / scale[g] for g in expressed])

    def draws(stream: int) -> Draws:
        return Draws(seed, epoch, row, stream)

    # How many.
    cls = tokens.cls_id is not None
    n_unexpressed = len(genes) - len(expressed)
    n_zeros = min(tokens.zeros, n_unexpressed)
    k = min(len(expressed), tokens.length - cls - n_zeros)

    # Which.
    falling = np.lexsort((expressed, -score))
    if k == len(expressed):
        chosen = np.arange(k)
    elif tokens.choose == "top":
        chosen = falling[:k]
    elif tokens.choose == "first":
        chosen = np.arange(k)
    elif tokens.choose == "random":
        chosen = np.argsort(draws(CHOICE).at(expressed))[:k]
    else:
        u = ((draws(CHOICE).at(expressed) >> np.uint64(11)) + np.uint64(1)) / 2.0**53
        chosen = np.argsort(-np.log(u) / score)[:k]

    # Values of all expressed genes.
    f32 = np.float32
    stored = x[expressed]
    normalized = stored.astype(f32) * f32(tokens.target_sum / total) if total else stored.astype(f32)
    normalized = (normalized.astype(np.float64) / [scale[g] for g in expressed]).astype(f32)
    if tokens.values == "counts":
        values = score.astype(f32)
    elif tokens.values == "normalized":
        values = normalized
    elif tokens.values == "log1p":
        values = np.log1p(normalized)
    elif tokens.values == "rank":
        values = np.argsort(falling).astype(f32) + 1
    else:
        low, high = digits(score, tokens.bins) if len(score) else ([], [])
        drawn = draws(BINS)
        values = np.array([b - drawn.below(g, b - a) for a, b, g in zip(low, high, expressed, strict=True)], dtype=f32)

    # Zeros: Floyd's draw of places among the genes that are not expressed.
    others = [g for g in genes if g not in set(expressed.tolist())]
    marked: set[int] = set()
    for last in range(n_unexpressed - n_zeros, n_unexpressed):
        place = draws(ZEROS).below(last, last + 1)
        marked.add(last if place in marked else place)
    pairs = [(int(expressed[i]), float(values[i]), score[i]) for i in chosen]
    pairs += [(others[place], 0.0, 0.0) for place in sorted(marked)]

    # In which order.
    if tokens.order == "gene":
        pairs.sort()
    elif tokens.order == "value":
        pairs.sort(key=lambda pair: (-pair[2], pair[0]))
    else:
        pairs.sort(key=lambda pair: int(draws(ORDER).at(pair[0])[0]))
    first = [tokens.cls_id] if cls else []
    return first + [ids[g] for g, _, _ in pairs], [0.0] * cls + [v for _, v, _ in pairs], len(expressed)


def check_batch(
    batch: dict[str, Any],
    x: np.ndarray,
    tokens: Tokens,
    rows: Any,
    *,
    all_genes: np.ndarray | None = None,
    names: list[str] | None = None,
    seed: int = 0,
    epoch: int = 0,
) -> None:
    """Compare a batch with the twin's. ``x`` has the delivered genes of its cells; ``rows`` are their numbers."""
    totals = (x if all_genes is None else all_genes).astype(np.float64).sum(1)
    names = [f"gene{j}" for j in range(x.shape[1])] if names is None else names
    made = [twin_row(x[i], tokens, totals[i], names, seed, epoch, int(row)) for i, row in enumerate(rows)]
    longest = max((len(genes) for genes, _, _ in made), default=0)
    width = tokens.length if tokens.pad_to == "length" else longest
    assert batch["genes"].shape == batch["values"].shape == batch["mask"].shape == (len(made), width)
    dtypes = [batch[key].dtype for key in ("genes", "values", "mask", "n_expressed")]
    assert dtypes == [torch.int64, torch.float32, torch.bool, torch.int64]
    assert batch["n_expressed"].tolist() == [n for _, _, n in made]
    for i, (genes, values, _) in enumerate(made):
        padding = width - len(genes)
        assert batch["mask"][i].tolist() == [True] * len(genes) + [False] * padding
        assert batch["genes"][i].tolist() == genes + [tokens.pad_id] * padding
        wanted = np.array(values + [tokens.pad_value] * padding, dtype=np.float32)
        exact = tokens.values != "log1p"
        np.testing.assert_allclose(batch["values"][i].numpy(), wanted, rtol=0 if exact else 5e-7, atol=0)
