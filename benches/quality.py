"""How well an order mixes: the entropy of labels within batches of 64, averaged over an epoch, in bits.

    python benches/quality.py                    # SIZE=small, or the size in the environment

A batch of true random order comes close to the entropy of the labels in the whole file; a batch of neighbours (one
donor) has far less. The orders are those that the loaders deliver, at the window that run.py uses. No matrix is read.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from keep import keep
from make_atlas import SIZES, make_atlas
from settings import LARGE_ROWS, SMALL_WINDOW, WINDOW

BATCH = 64
LABELS = ["cell_type", "donor_id"]


def entropy(codes: np.ndarray) -> float:
    """Of the labels in one batch, in bits."""
    share = np.bincount(codes)
    share = share[share > 0] / len(codes)
    return float(-(share * np.log2(share)).sum())


def quality(orders: Iterable[np.ndarray], codes: np.ndarray) -> float:
    """Mean entropy over the full batches of an epoch."""
    return float(np.mean([entropy(codes[rows]) for rows in orders if len(rows) == BATCH]))


def annfeed_orders(path: Path, window: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    """The batches of each order of annfeed, as its loader plans them."""
    from annfeed import AnnDataset

    dataset = AnnDataset(path, obs_columns=[], window=window)
    for name, keywords in [
        ("annfeed, file order", {"shuffle": False}),
        *((f"annfeed, block {k}", {"block_size": k}) for k in (512, 64, 16, "auto")),
        ("annfeed, exact random", {"block_size": 1}),
    ]:
        loader = dataset.get_optimized_dataloader(BATCH, seed=0, **keywords)
        yield name, [rows for planned in loader.sampler.begin().windows() for rows in planned.batches]


def peer_orders(n_obs: int, window: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    """The batches of scDataset over the row numbers, and of numpy's permutation."""
    try:
        from scdataset import BlockShuffling, scDataset
    except ImportError as error:
        print(f"scDataset is left out ({error})")
    else:
        for block in (64, 16):
            strategy = BlockShuffling(block_size=block)
            rows = scDataset(np.arange(n_obs), strategy, batch_size=BATCH, fetch_factor=window // BATCH, seed=0)
            yield f"scDataset, block {block}", list(rows)
    order = np.random.default_rng(0).permutation(n_obs)
    yield "true random (numpy)", np.split(order, range(BATCH, n_obs, BATCH))


def main() -> None:
    """Measure every order and write bench-data/quality.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default=os.environ.get("SIZE", "small"))
    parser.add_argument("--file", type=Path, help="an .h5ad with cell_type and donor_id instead of a made one")
    parser.add_argument("--label", help="what the results call the data")
    given = parser.parse_args()
    path = given.file or make_atlas(SIZES[given.size])
    label = given.label or SIZES[given.size].label

    from annfeed import AnnDataset

    obs = AnnDataset(path, obs_columns=LABELS).obs
    codes = {name: pd.factorize(obs[name])[0] for name in LABELS}
    n_obs = len(obs)
    window = WINDOW if n_obs >= LARGE_ROWS else SMALL_WINDOW
    rows = []
    for name, batches in [*annfeed_orders(path, window), *peer_orders(n_obs, window)]:
        scores = {column: round(quality(batches, codes[column]), 3) for column in LABELS}
        rows.append({"data": label, "window": window, "order": name, **scores})
        print(f"{name:28} " + "  ".join(f"{column} {score:.3f}" for column, score in scores.items()), flush=True)
    keep("quality", label, rows)


def table(rows: pd.DataFrame) -> str:
    """Bits of each order."""
    lines = ["| window | order | cell_type, bits | donor_id, bits |", "|--:|---|--:|--:|"]
    for row in rows.itertuples():
        lines.append(f"| {row.window:,} | {row.order} | {row.cell_type:.3f} | {row.donor_id:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
