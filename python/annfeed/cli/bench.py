"""``annfeed bench``: cells per second from one file or several, in several orders."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

from annfeed.batches.tokens import Tokens
from annfeed.cli.plot import check_plot, plot_rates
from annfeed.cli.show import show
from annfeed.dataset import AnnDataset
from annfeed.display.progress import progress_bar
from annfeed.display.report import Bar, Bars, Report
from annfeed.inputs.patterns import files_of
from annfeed.loading.loader import WindowLoader
from annfeed.process.threads import reads_in_flight

#: The orders that are measured, and the keywords of a loader for each.
ORDERS: dict[str, dict[str, Any]] = {
    "file order": {"shuffle": False},
    "block_size='auto'": {"block_size": "auto"},
    "block_size=16": {"block_size": 16},
    "exact random": {},
}


@dataclass(frozen=True)
class Measured:
    """What reading in one order took."""

    order: str
    cells: int
    seconds: float
    first: float
    stats: dict[str, int]

    @property
    def rate(self) -> float:
        """Cells per second."""
        return self.cells / self.seconds

    def line(self) -> str:
        """Return it as a row of the table."""
        decoded, waited = self.stats["bytes_decoded"] / 1e9, self.stats["waited_us"] / 1e6
        numbers = f"{self.rate:>12,.0f}{self.first:>12.2f} s{decoded:>12.2f}{waited:>8.2f} s{self.cells:>10,}"
        return f"{self.order:<20}{numbers}"


def bench(options: argparse.Namespace) -> None:
    """Measure each order and print a line for it; then a chart of all."""
    files = files_of(options.files)
    if options.plot is not None:
        check_plot(options.plot)  # before the minute that it takes
    cache, depth = _number_or_word(options.cache), _number_or_word(options.io_depth)
    try:
        reads_in_flight(depth)
    except TypeError as error:  # a word
        raise ValueError(str(error)) from None
    measured: list[Measured] = []
    for name, order in ORDERS.items():
        if options.cold:
            for file in files:
                drop_pages(file)
        dataset = AnnDataset(
            files if len(files) > 1 else files[0],
            elem=options.elem,
            obs_columns=[],
            window=options.window,
            cache=cache,
            io_depth=depth,
            output=Tokens() if options.output == "tokens" else options.output,
        )
        with dataset:
            source = dataset.reader.file_with_headers()
            if source is not None:
                source.told_of_cost = True  # which is what is measured here
            loader = dataset.get_optimized_dataloader(options.batch_size, seed=0, **order)
            if not measured:  # once all options are checked
                print(f"{'order':<20}{'cells/s':>12}{'first batch':>14}{'decoded GB':>12}{'waited':>10}{'cells':>10}")
            measured.append(_run(name, dataset, loader, options.seconds))
        print(measured[-1].line(), flush=True)
    where = f"window {options.window:,}, batch {options.batch_size}, {options.output}, cache {options.cache}"
    pages = "the file's pages dropped from the page cache before each order" if options.cold else "page cache as it was"
    print(f"({where}, io depth {depth}, {pages})")
    title = os.path.basename(files[0]) if len(files) == 1 else f"{len(files)} files"
    show(Report(title, [Bars("cells/s", [Bar(one.order, one.rate, f"{one.rate:,.0f}") for one in measured])]))
    if options.plot is not None:
        plot_rates({one.order: one.rate for one in measured}, f"{title} ({where})", options.plot)


def drop_pages(path: str) -> None:
    """Drop a file from the page cache, so that it is read from its disk; pages that somebody else has mapped stay.

    Raises
    ------
    OSError
        If there is no such file, or the system cannot do it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     drop_pages(file.name)
    """
    if not hasattr(os, "posix_fadvise"):
        raise OSError(f"--cold needs posix_fadvise, which {sys.platform} has not. Leave it out")
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)  # what was not written yet cannot be dropped
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def _number_or_word(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return text


def _run(order: str, dataset: AnnDataset, loader: WindowLoader, seconds: float) -> Measured:
    begin = time.perf_counter()
    cells, first = 0, 0.0
    with progress_bar(order, None, "cells") as count:
        for batch in loader:
            cells += (n := next(iter(batch.values())).shape[0])
            first = first or time.perf_counter() - begin
            if time.perf_counter() - begin > seconds:
                break
            count(n)
        taken = time.perf_counter() - begin
    return Measured(order, cells, taken, first, dataset.stats())
