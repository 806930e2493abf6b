"""What an order costs a model: accuracy on cells held out, after one epoch, beside true random order.

    python benches/mixing.py --size 200k         # SIZE=small, or the size in the environment; five seeds
    python benches/mixing.py --file my_atlas.h5ad --seeds 3 --orders "exact random" "block 16"
    python benches/mixing.py --chart docs/mixing-accuracy.svg --draw-only bench-data/mixing.csv

A linear classifier and a neural one with one hidden layer learn cell types, which are mixed in the file, and donors, by
which the file is sorted. Beside accuracy: the drift of shares (how far the shares of classes in a window are from those
of the whole, as total variation distance) and the entropy of classes within batches. "Before" is the order of blocks of
states without "block_order": blocks permuted over the whole file. Orders are those that the loaders plan; the matrix is
held in memory, so nobody waits for reading.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from keep import keep
from make_atlas import FOLDER, SIZES, make_atlas
from quality import LABELS, entropy
from settings import LARGE_ROWS, SMALL_WINDOW, WINDOW

BATCH, HIDDEN, RATE = 128, 64, 1e-3
#: The orders, by name: what the loader is told, and whether blocks come as before they were spread.
ORDERS: dict[str, tuple[dict[str, Any], bool]] = {
    "exact random": ({"block_size": 1}, False),
    **{f"block {k}": ({"block_size": k}, False) for k in (16, 64, "auto")},
    **{f"block {k}, before": ({"block_size": k}, True) for k in (16, 64, "auto")},
    "file order": ({"shuffle": False}, False),
}
MODELS = ["linear", "neural"]
COLORS = {"linear": "#0369a1", "neural": "#c2410c"}


class Data:
    """Cells to learn from and cells to test on, in memory: log-normalised, scaled counts of the most variable genes."""

    def __init__(self, path: Path, n_train: int, n_test: int, n_genes: int) -> None:
        from annfeed import AnnDataset

        with AnnDataset(path, output="csr", obs_columns=LABELS, cache=0) as whole:
            rows = np.random.default_rng(0).permutation(len(whole))
            n_train = min(n_train, len(rows) * 4 // 5)
            #: In file order, as a subset of the file is.
            self.train = np.sort(rows[:n_train])
            test = np.sort(rows[n_train : n_train + n_test])
            sample = _matrix(whole, test[: 1 << 12])
            variance = np.asarray(sample.power(2).mean(0)).ravel() - np.asarray(sample.mean(0)).ravel() ** 2
            genes = np.sort(np.argsort(-variance)[:n_genes])
            x, x_test = (torch.from_numpy(_matrix(whole, rows, genes).toarray()) for rows in (self.train, test))
            codes = {label: pd.factorize(whole.obs[label])[0] for label in LABELS}
        scale = x.std(0).clip(1e-3)
        #: float32 [cells, genes]
        self.x, self.x_test = (x - x.mean(0)) / scale, (x_test - x.mean(0)) / scale
        self.codes = {label: codes[label][self.train] for label in LABELS}
        self.test_codes = {label: torch.from_numpy(codes[label][test]) for label in LABELS}


def _matrix(dataset: Any, rows: np.ndarray, genes: np.ndarray | slice = slice(None)) -> sp.csr_matrix:
    """Log-normalised counts (10,000 a cell) of these rows and genes."""
    parts = []
    for batch in dataset.subset(rows).get_optimized_dataloader(2048, shuffle=False):
        x = batch["X"]
        arrays = (x.values().numpy(), x.col_indices().numpy(), x.crow_indices().numpy())
        counts = sp.csr_matrix(arrays, shape=x.shape)
        scale = 1e4 / np.maximum(np.asarray(counts.sum(1)).ravel(), 1)
        parts.append((sp.diags_array(scale.astype(np.float32)) @ counts).log1p().tocsr()[:, genes])
    return sp.vstack(parts, format="csr", dtype=np.float32)


def planned(path: Path, rows: np.ndarray, window: int, seed: int, name: str) -> list[np.ndarray]:
    """The batches of an epoch as the loader plans it, positions in ``rows``."""
    from annfeed import AnnDataset

    keywords, before = ORDERS[name]
    with AnnDataset(path, obs_columns=[], obs_subset=rows, window=window) as dataset:
        loader = dataset.get_optimized_dataloader(BATCH, seed=seed, **keywords)
        if before:
            state = loader.state_dict()
            del state["order"]["block_order"]
            loader.load_state_dict(state)
        return [batch for planned in loader.sampler.begin().windows() for batch in planned.batches]


def drift(batches: list[np.ndarray], codes: np.ndarray, window: int) -> float:
    """How far shares of classes are from those of the whole: total variation distance, mean of whole windows."""
    order = np.concatenate(batches)
    whole = np.bincount(codes) / len(codes)
    starts = range(0, max(1, len(order) - window + 1), window)
    windows = (np.bincount(codes[order[start : start + window]], minlength=len(whole)) for start in starts)
    return float(np.mean([abs(found / found.sum() - whole).sum() / 2 for found in windows]))


def accuracies(data: Data, batches: list[np.ndarray], seed: int) -> dict[tuple[str, str], float]:
    """By model and label, the share of held-out cells that are told right after these batches."""
    torch.manual_seed(seed)
    models = {}
    for label in LABELS:
        n_classes = int(data.codes[label].max()) + 1
        models["linear", label] = torch.nn.Linear(data.x.shape[1], n_classes)
        models["neural", label] = torch.nn.Sequential(
            torch.nn.Linear(data.x.shape[1], HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, n_classes)
        )
    # Adam treats each number by itself: models are trained as if each were alone.
    optimizer = torch.optim.Adam([p for model in models.values() for p in model.parameters()], RATE, fused=True)
    codes = {label: torch.from_numpy(data.codes[label]) for label in LABELS}
    for positions in batches:
        at = torch.from_numpy(positions)
        x = data.x[at]
        losses = [torch.nn.functional.cross_entropy(model(x), codes[key[1]][at]) for key, model in models.items()]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    with torch.no_grad():
        return {
            key: float((model(data.x_test).argmax(1) == data.test_codes[key[1]]).float().mean())
            for key, model in models.items()
        }


def measured(data: Data, path: Path, window: int, seeds: int, names: list[str]) -> Iterator[dict[str, Any]]:
    """What is found of each order under each seed."""
    for seed in range(seeds):
        for name in names:
            began = time.perf_counter()
            batches = planned(path, data.train, window, seed, name)
            found: dict[str, Any] = {"order": name, "seed": seed}
            for label, codes in data.codes.items():
                found[f"drift, {label}"] = drift(batches, codes, window)
                found[f"bits, {label}"] = float(np.mean([entropy(codes[rows]) for rows in batches]))
            for (model, label), score in accuracies(data, batches, seed).items():
                found[f"{model}, {label}"] = score
            print(
                f"seed {seed}  {name:18}"
                + "".join(f"  {key} {value:.4f}" for key, value in found.items() if isinstance(value, float))
                + f"  ({time.perf_counter() - began:.0f} s)",
                flush=True,
            )
            yield found


def main() -> None:
    """Measure every order, write bench-data/mixing.csv, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default=os.environ.get("SIZE", "small"))
    parser.add_argument("--file", type=Path, help="an .h5ad with cell_type and donor_id instead of a made one")
    parser.add_argument("--label", help="what the results call the data")
    parser.add_argument("--window", type=int, help="rows read together; default 16,384, or 2,048 on small files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train", type=int, default=100_000, help="cells to learn from; at most 4 of 5")
    parser.add_argument("--genes", type=int, default=500, help="so many of the most variable ones")
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=list(ORDERS))
    parser.add_argument("--chart", type=Path, help="draw accuracies on donors as this picture")
    parser.add_argument("--draw-only", type=Path, metavar="CSV", help="draw what was measured before")
    given = parser.parse_args()
    if given.draw_only is not None:
        return draw(pd.read_csv(given.draw_only), given.chart)
    torch.set_num_threads(1)
    path = given.file or make_atlas(SIZES[given.size])
    label = given.label or SIZES[given.size].label
    data = Data(path, given.train, 20_000, given.genes)
    window = given.window or (WINDOW if len(data.train) >= LARGE_ROWS else SMALL_WINDOW)
    rows = [
        {"data": label, "window": window, "batch": BATCH, **found}
        for found in measured(data, path, window, given.seeds, given.orders)
    ]
    FOLDER.mkdir(exist_ok=True)
    keep("mixing", label, rows)
    print(table(pd.DataFrame(rows)))
    if given.chart is not None:
        draw(pd.DataFrame(rows), given.chart)


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Write the chart: for each order the accuracies on donors, a dot for each seed and a line at their mean."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "annfeed", "font.size": 10})
    from matplotlib import pyplot as plt

    orders = list(dict.fromkeys(rows["order"]))[::-1]
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 0.6 + 0.36 * len(orders)), sharey=True, layout="constrained")
    for axis, model in zip(axes, MODELS, strict=True):
        for place, order in enumerate(orders):
            found = rows.loc[rows["order"] == order, f"{model}, {LABELS[1]}"]
            axis.plot(found, [place] * len(found), "o", color=COLORS[model], alpha=0.45, markersize=5, linewidth=0)
            axis.plot([found.mean()] * 2, [place - 0.3, place + 0.3], color=COLORS[model], linewidth=2)
        axis.set_title(f"{model} model", fontsize=10)
        axis.set_xlim(left=0)
        axis.grid(axis="x", color="#e7e5e4", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel(f"accuracy on {LABELS[1]}, held-out cells")
    axes[0].set_yticks(range(len(orders)), orders)
    figure.savefig(path, metadata={"Date": None})


def table(rows: pd.DataFrame) -> str:
    """Accuracy of each order with its spread over seeds, and as a ratio to exact random order."""
    columns = [f"{model}, {label}" for label in reversed(LABELS) for model in MODELS]
    beside = [f"{what}, {label}" for what in ("drift", "bits") for label in reversed(LABELS)]
    lines = ["| order | " + " | ".join([*columns, *beside]) + " |", "|---" + "|--:" * len([*columns, *beside]) + "|"]
    means = rows.groupby("order", sort=False).mean(numeric_only=True)
    spread = rows.groupby("order", sort=False).std(numeric_only=True).fillna(0.0)
    exact = means.loc["exact random"] if "exact random" in means.index else None
    for name in means.index:
        cells = []
        for column in columns:
            ratio = "" if exact is None else f", {means.loc[name, column] / exact[column]:.2f}"
            cells.append(f"{means.loc[name, column]:.3f} ± {spread.loc[name, column]:.3f}{ratio}")
        cells += [f"{means.loc[name, column]:.3f}" for column in beside]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
