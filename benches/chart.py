"""The chart: the rate of every contender, dense and CSR."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def draw(label: str, medians: pd.DataFrame, path: Path) -> None:
    """Write it as PNG; without matplotlib there is none."""
    try:
        import matplotlib
    except ImportError as error:
        print(f"no chart ({error})")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [("dense", "dense batches"), ("csr", "CSR batches")]
    counts = [int((medians["output"] == output).sum()) for output, _ in panels]
    figure, axes = plt.subplots(
        2, 1, figsize=(9, 0.27 * sum(counts) + 1.6), height_ratios=counts, sharex=True, layout="constrained"
    )
    for axis, (output, title) in zip(axes, panels, strict=True):
        part = medians[medians["output"] == output].sort_values("cells_per_s")
        colors = [
            "#c2410c" if n.startswith("annfeed") else "#d6d3d1" if n.startswith(("limit", "copy")) else "#78716c"
            for n in part.index
        ]
        bars = axis.barh(part.index, part["cells_per_s"], color=colors, height=0.75)
        axis.bar_label(bars, [f" {rate:,.0f}" for rate in part["cells_per_s"]], fontsize=8)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xscale("log")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.15, y=0.01)
    axes[-1].set_xlabel("cells/s, logarithmic", fontsize=9)
    figure.suptitle(f"{label}: annfeed (orange), peers (grey), yardsticks (light)", fontsize=10)
    figure.savefig(path, dpi=100)
