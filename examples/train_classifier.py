"""Trains a classifier of cells from an .h5ad file that stays on disk, and says how well and how fast it went.

    python examples/train_classifier.py atlas.h5ad --label cell_type

One part of the cells, with every class in proportion, is held out of training and tells the accuracy. The same seed
gives the same run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from annfeed import AnnDataset, Compose, Log1p, NormalizeTotal, Transform


@dataclass
class Labels:
    """The class of each cell: an obs column as numbers from 0."""

    column: str
    names: list[str]
    codes: np.ndarray  # int64 [n_cells], -1 where the label is missing
    values: torch.Tensor | None  # of a column of integers: the value of each class

    def of(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the classes of a batch's cells, int64 [B]."""
        found = batch[f"obs_{self.column}"]
        return found if self.values is None else torch.searchsorted(self.values, found.double())


def read_labels(file: str | list[str], elem: str, column: str) -> Labels:
    """Read the classes of all cells; the matrix is opened and not read."""
    with AnnDataset(file, elem=elem, obs_columns=[column], categories="code") as cells:
        series = cells.obs[column]
        if column in cells.categories:  # text, as int64 codes in the batches
            categories, values = cells.categories[column], None
        else:
            categories = pd.Index(np.unique(series.dropna().to_numpy()))
            values = torch.from_numpy(categories.to_numpy(np.float64))
            if (values % 1 != 0).any():
                raise ValueError(f"{file}: obs column {column!r} holds measurements ({series.iloc[0]}, …), not classes")
        codes = pd.Categorical(series, categories=categories).codes.astype(np.int64)
    n_classes, n_labelled = len(np.unique(codes[codes >= 0])), int((codes >= 0).sum())
    if n_classes < 2 or n_classes > n_labelled / 2:
        raise ValueError(
            f"{file}: obs column {column!r} has {n_classes:,} different values in {n_labelled:,} cells; "
            "a label has at least two, each in several cells"
        )
    return Labels(column, [str(c) for c in categories], codes, values)


def split(codes: np.ndarray, test_share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the labelled cells into rows to train on and rows held out, both sorted, every class in proportion."""
    random = np.random.default_rng(seed)
    train, test = [], []
    for code in np.unique(codes[codes >= 0]):
        rows = random.permutation(np.flatnonzero(codes == code))
        n_test = round(len(rows) * test_share)
        test.append(rows[:n_test])
        train.append(rows[n_test:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def choose_transform(file: str | list[str], elem: str, rows: np.ndarray) -> tuple[Transform | None, str]:
    """Look at a few cells: counts are normalised, anything else is taken as it is."""
    # Nothing is cached, so that the time to the first batch stays a true one.
    with AnnDataset(file, elem=elem, obs_columns=[], obs_subset=rows, cache=0) as cells:
        x = next(iter(cells.get_optimized_dataloader(batch_size=len(rows), shuffle=False)))["X"]
    if (x < 0).any():
        return None, "taken as stored (there are negative values, so no counts)"
    if (x % 1 != 0).any():
        return None, "taken as stored (there are fractions, so no counts)"
    return Compose([NormalizeTotal(1e4), Log1p()]), "counts: each cell is scaled to 10,000, then log(1 + x)"


class Progress:
    """A line for each epoch, and in a terminal a bar over all of them."""

    def __init__(self, n_epochs: int, n_cells: int) -> None:
        self._n_epochs, self._n_cells = n_epochs, n_cells
        form = "{desc} |{bar:30}| {percentage:3.0f} %, {remaining} left, {rate_fmt}{postfix}"
        self._bar = tqdm(
            total=n_epochs * n_cells, desc="training", unit=" cells", unit_scale=True, bar_format=form, disable=None
        )

    def step(self, n_cells: int, loss: float) -> None:
        """Count a batch, with the mean loss of the epoch so far."""
        self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        self._bar.update(n_cells)

    def end_epoch(self, epoch: int, loss: float, seconds: float) -> None:
        """Tell the mean loss and the speed of an epoch (counted from 1)."""
        tqdm.write(f"epoch {epoch:>3}/{self._n_epochs}   loss {loss:7.4f}   {self._n_cells / seconds:9,.0f} cells/s")

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


@dataclass
class Times:
    """Where the time of training went, in seconds."""

    first_batch: float = 0.0
    waiting: float = 0.0
    total: float = 0.0
    n_cells: int = 0


def train(model: nn.Module, cells: AnnDataset, labels: Labels, options: argparse.Namespace) -> Times:
    """Train ``model`` on ``cells``."""
    loader = cells.get_optimized_dataloader(batch_size=options.batch_size, shuffle=True, seed=options.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    progress, times = Progress(options.epochs, len(cells)), Times()
    start = time.perf_counter()
    for epoch in range(1, options.epochs + 1):
        n_seen, loss_sum, epoch_start = 0, 0.0, time.perf_counter()
        asked = epoch_start
        for batch in loader:
            times.waiting += time.perf_counter() - asked
            times.first_batch = times.first_batch or time.perf_counter() - start
            x, y = batch["X"].to(options.device), labels.of(batch).to(options.device)
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            n_seen += len(y)
            loss_sum += loss.item() * len(y)
            progress.step(len(y), loss_sum / n_seen)
            asked = time.perf_counter()
        times.n_cells += n_seen
        progress.end_epoch(epoch, loss_sum / n_seen, time.perf_counter() - epoch_start)
        if not np.isfinite(loss_sum):
            raise ValueError(
                f"the loss is {loss_sum}: {options.file} holds values that are not finite, or --lr is too large"
            )
    times.total = time.perf_counter() - start
    progress.close()
    return times


@torch.inference_mode()
def accuracy(model: nn.Module, cells: AnnDataset, labels: Labels, options: argparse.Namespace) -> float:
    """Return the share of ``cells`` whose class the model tells."""
    model.eval()
    n_right = 0
    for batch in cells.get_optimized_dataloader(batch_size=options.batch_size, shuffle=False):
        guess = model(batch["X"].to(options.device)).argmax(1).cpu()
        n_right += int((guess == labels.of(batch)).sum())
    return n_right / len(cells)


def main(options: argparse.Namespace) -> None:
    """Do all of it."""
    # Half of the cores compute; torch's threads would spin on those that decode.
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    labels = read_labels(options.file, options.elem, options.label)
    train_rows, test_rows = split(labels.codes, options.test_share, options.seed)
    if len(test_rows) == 0:
        raise ValueError(f"{options.file}: no class has enough cells to hold out {options.test_share:.0%} of it")

    transform, values = choose_transform(options.file, options.elem, train_rows[:256])
    # Two datasets over one file: each sees its own rows.
    what = {"elem": options.elem, "obs_columns": [options.label], "categories": "code", "transform": transform}
    start = time.perf_counter()
    train_cells = AnnDataset(options.file, obs_subset=train_rows, **what)
    opened = time.perf_counter() - start
    test_cells = AnnDataset(options.file, obs_subset=test_rows, **what)

    n_genes, n_classes = train_cells.shape[1], len(labels.names)
    counts = np.bincount(labels.codes[train_rows], minlength=n_classes)
    largest = int(counts.argmax())
    baseline = float(np.mean(labels.codes[test_rows] == largest))
    n_missing = int((labels.codes < 0).sum())
    left_out = f"; {n_missing:,} without a label are left out" if n_missing else ""
    torch.manual_seed(options.seed)
    model = nn.Sequential(nn.Linear(n_genes, options.hidden), nn.ReLU(), nn.Linear(options.hidden, n_classes))
    model.to(options.device)

    print(f"file     {options.file}")
    print(f"matrix   {options.elem}: {len(labels.codes):,} cells x {n_genes:,} columns, {values}")
    print(f"label    {options.label}: {(counts > 0).sum()} classes, the largest is {labels.names[largest]!r}{left_out}")
    print(f"cells    {len(train_rows):,} to train on, {len(test_rows):,} held out, every class in proportion")
    print(f"model    {n_genes:,} > {options.hidden} > {n_classes} on {options.device}, batches of {options.batch_size}")
    print(flush=True)
    times = train(model, train_cells, labels, options)
    right = accuracy(model, test_cells, labels, options)
    print()
    print(f"held-out accuracy     {right:.1%} (always {labels.names[largest]!r}: {baseline:.1%})")
    print(f"speed                 {times.n_cells / times.total:,.0f} cells/s, reading and training together")
    print(f"waiting for batches   {times.waiting / times.total:.0%} of the time")
    print(
        f"first batch           after {(opened + times.first_batch) * 1e3:.0f} ms "
        f"({opened * 1e3:.0f} ms to open the file, {times.first_batch * 1e3:.0f} ms to read and decode)"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a classifier of cells from an .h5ad file that stays on disk.")
    add = parser.add_argument
    add("file", metavar="FILE", nargs="+", help="an .h5ad file, or several; a pattern in quotes is one, too")
    add("--label", metavar="KEY", required=True, help="the obs column with the classes")
    add("--elem", default="X", help="where the matrix lies: X, raw/X, layers/counts, obsm/X_pca (default: %(default)s)")
    add("--epochs", type=_at_least_one, default=10, help="times that all cells are seen (default: %(default)s)")
    add("--batch-size", type=_at_least_one, default=32, help="cells of a batch (default: %(default)s)")
    add("--lr", type=float, default=1e-3, help="learning rate of Adam (default: %(default)s)")
    add("--hidden", type=_at_least_one, default=128, help="width of the hidden layer (default: %(default)s)")
    add("--test-share", type=_share, default=0.2, help="share of the cells to hold out (default: %(default)s)")
    add("--seed", type=int, default=0, help="for split, order and weights (default: %(default)s)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default here: %(default)s)")
    options = parser.parse_args()
    options.file = options.file if len(options.file) > 1 else options.file[0]
    return options


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return share


if __name__ == "__main__":
    try:
        main(_options())
    except (OSError, ValueError, KeyError, MemoryError) as error:  # of the file or the options; each says what to do
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
