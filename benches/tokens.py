"""Batches of tokens beside CSR batches, and beside the same made with numpy of CSR batches.

    python benches/tokens.py                     # SIZE=small, or the size in the environment

Rounds are interleaved: each measures every contender once, and ratios are taken within a round. Before, tokens are
compared row by row with those that numpy makes of rows that h5py reads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from keep import keep, layout
from machine import OthersMeter
from oracle import file_rows
from settings import Settings, add_arguments, chosen, warm

#: Genes of a cell.
LENGTH = 2048
#: What is compared: ours, the other, the order, whether rows come from the cache, and the ratio aimed for.
COMPARISONS = [
    ("tokens", "CSR", "random", "on", 0.6),
    ("tokens", "CSR", "block auto", "off", 0.9),
    ("tokens", "numpy on CSR", "random", "on", 10.0),
]
#: Rows compared.
CHECKED = 256


def numpy_tokens(x: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The genes of the greatest values of each row of a CSR tensor, falling, ties by gene, padded; in numpy."""
    indptr, columns, data = (part.numpy() for part in (x.crow_indices(), x.col_indices(), x.values()))
    rows = [slice(start, stop) for start, stop in pairwise(indptr)]
    width = max((min(row.stop - row.start, LENGTH) for row in rows), default=0)
    genes, values = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.float32)
    mask = np.zeros((len(rows), width), bool)
    for i, row in enumerate(rows):
        best = np.argsort(-data[row], kind="stable")[:LENGTH]
        genes[i, : len(best)], values[i, : len(best)], mask[i, : len(best)] = columns[row][best], data[row][best], True
    return genes, values, mask


def batches(name: str, order: str, cache: str, settings: Settings) -> Iterator[Any]:
    """Yield batches of later and later epochs."""
    from annfeed import AnnDataset, Tokens

    dataset = AnnDataset(
        settings.file,
        output=Tokens(length=LENGTH) if name == "tokens" else "csr",
        obs_columns=[],
        window=settings.window,
        cache=settings.cache if cache == "on" else 0,
        return_index=True,
    )
    block = "auto" if order == "block auto" else 1
    loader = dataset.get_optimized_dataloader(settings.batch, block_size=block, seed=settings.seed)
    while True:
        for batch in loader:
            if name == "numpy on CSR":
                numpy_tokens(batch["X"])
            yield batch


def check(settings: Settings) -> None:
    """Compare tokens with those that numpy makes of the file's rows."""
    import torch

    n = 0
    for batch in batches("tokens", "random", "off", settings):
        found = file_rows(settings.file, batch["index"].numpy()).sorted_indices()
        parts = (torch.from_numpy(part) for part in (found.indptr, found.indices, found.data))
        x = torch.sparse_csr_tensor(*parts, found.shape)
        expected = numpy_tokens(x)
        for key, wanted in zip(("genes", "values", "mask"), expected, strict=True):
            assert np.array_equal(batch[key].numpy(), wanted), f"{key} of rows {batch['index']} differ"
        assert batch["n_expressed"].tolist() == np.diff(found.indptr).tolist()
        n += len(batch["index"])
        if n >= CHECKED:
            return


def rate(made: Iterator[Any], seconds: float) -> float:
    """Cells per second, for at least so many seconds."""
    cells, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        cells += len(next(made)["index"])
    return cells / took


def main() -> None:
    """Check, measure round after round, and write bench-data/tokens.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    given = parser.parse_args()
    label, settings = chosen(given)
    warm(settings.file)
    check(settings)
    rows: list[dict[str, Any]] = []
    ways = dict.fromkeys((name, order, cache) for *names, order, cache, _ in COMPARISONS for name in names)
    for order, cache in dict.fromkeys((order, cache) for _, order, cache in ways):
        # Of one kind of reading at a time, as all have a cache of their own.
        open_ones = {name: batches(name, order, cache, settings) for name, o, c in ways if (o, c) == (order, cache)}
        for made in open_ones.values():  # the first epoch fills the cache
            _epoch(made, settings) if cache == "on" else next(made)
        for turn in range(given.rounds):
            meter = OthersMeter()
            for name, made in open_ones.items():
                row = {"data": label, "round": turn, "name": name, "order": order, "cache": cache}
                row |= {"cells_s": round(rate(made, given.seconds), 1)}
                rows.append(row | {"window": settings.window, "batch": settings.batch, "others": meter.share()})
    keep("tokens", label, rows, file=layout(settings.file), rounds=given.rounds, seconds=given.seconds)
    print(table(pd.DataFrame(rows)))


def _epoch(made: Iterator[Any], settings: Settings) -> None:
    import h5py

    with h5py.File(settings.file) as file:
        n_obs = int(file["X"].attrs["shape"][0])
    for _ in range(-(-n_obs // settings.batch)):
        next(made)


def table(rows: pd.DataFrame) -> str:
    """Medians over the rounds; ratios are taken within a round."""
    lines = ["| batches | cells/s | beside | cells/s | ratio | in the rounds | aim |", "|---|--:|---|--:|--:|--:|--:|"]
    rates = rows.pivot_table(index=["order", "cache", "round"], columns="name", values="cells_s")
    for ours, other, order, cache, aim in COMPARISONS:
        found = rates.loc[order, cache]
        ratio = found[ours] / found[other]
        lines.append(
            f"| {ours}, {order}, cache {cache} | {found[ours].median():,.0f} | {other} | {found[other].median():,.0f} "
            f"| {ratio.median():.2f} | {ratio.min():.2f} to {ratio.max():.2f} | {aim:g} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
