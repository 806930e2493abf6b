"""Blocks of what size mix well, in windows of what size: entropy of labels in batches, drawn as docs/mixing.svg.

    python benches/block_sizes.py --size 200k    # SIZE=small, or the size in the environment

As quality.py, for many sizes: batches of 64 as the loader plans them, in one epoch; no matrix is read. The file is
sorted by donor, as atlases are. A dashed line shows a random order, and a dotted one the order of the file.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pandas as pd
from keep import keep
from make_atlas import SIZES, make_atlas
from quality import BATCH, LABELS, quality

WINDOWS = [2_048, 6_000, 16_384]
BLOCKS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
CHART = Path(__file__).resolve().parent.parent / "docs" / "mixing.svg"
#: The label that shows how well an order mixes: its neighbours in the file are of one kind.
SORTED_BY = "donor_id"
COLORS = {2_048: "#fdba74", 6_000: "#ea580c", 16_384: "#7c2d12"}


def measured(path: Path) -> list[dict[str, Any]]:
    """Bits of each label in each order."""
    from annfeed import AnnDataset

    with AnnDataset(path, obs_columns=LABELS, cache=0) as dataset:
        obs = dataset.obs
        codes = {label: pd.factorize(obs[label])[0] for label in LABELS}

        def row(window: int, order: str, keywords: dict[str, Any]) -> dict[str, Any]:
            dataset.window = window
            loader = dataset.get_optimized_dataloader(BATCH, seed=0, **keywords)
            batches = [rows for planned in loader.sampler.begin().windows() for rows in planned.batches]
            bits = {label: round(quality(batches, codes[label]), 4) for label in LABELS}
            return {"window": window, "order": order, "n_rows": len(obs), **bits}

        found = [row(WINDOWS[0], "file order", {"shuffle": False})]
        for window in WINDOWS:
            found += [row(window, f"block {k}", {"block_size": k}) for k in [*BLOCKS, "auto"]]
        return found


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Write the chart: a line for each window."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "annfeed", "font.size": 10})
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
    exact, in_file = (rows.loc[rows["order"] == name, SORTED_BY].iloc[0] for name in ("block 1", "file order"))
    for window, of_window in rows[rows["order"] != "file order"].groupby("window", sort=False):
        lines = of_window[of_window["order"] != "block auto"]
        blocks = [int(order.removeprefix("block ")) for order in lines["order"]]
        axis.plot(blocks, lines[SORTED_BY], "o-", markersize=3.5, color=COLORS[window], label=f"window {window:,}")
    axis.axhline(exact, color="#57534e", linestyle="--", linewidth=1, label="exact random")
    axis.axhline(in_file, color="#57534e", linestyle=":", linewidth=1, label="file order")
    axis.set_xscale("log", base=2)
    axis.set_xticks(BLOCKS, BLOCKS)
    axis.set_xlabel("block_size, rows")
    axis.set_ylabel(f"{SORTED_BY}, bits in a batch of {BATCH}")
    axis.set_ylim(bottom=-0.1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 0.04), frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure, write bench-data/block_sizes.csv, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default=os.environ.get("SIZE", "small"))
    parser.add_argument("--file", type=Path, help="an .h5ad with cell_type and donor_id instead of a made one")
    parser.add_argument("--label", help="what the results call the data")
    parser.add_argument("--chart", type=Path, default=CHART, help="where it is drawn (default: docs/mixing.svg)")
    given = parser.parse_args()
    label = given.label or SIZES[given.size].label
    rows = [{"data": label, **row} for row in measured(given.file or make_atlas(SIZES[given.size]))]
    keep("block sizes", label, rows)
    table = pd.DataFrame(rows)
    draw(table, given.chart)
    print(table.pivot_table(index=["window", "order"], values=LABELS, sort=False).to_string())
    print(f"drawn as {given.chart}")


if __name__ == "__main__":
    main()
