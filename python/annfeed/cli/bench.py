"""``annfeed bench``: cells per second from one file or several, in several orders."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any, Literal

from annfeed.dataset import AnnDataset
from annfeed.inputs.patterns import files_of


def bench(options: argparse.Namespace) -> None:
    """Measure each order and print a line for it."""
    files = files_of(options.files)
    cache: str | int = int(options.cache) if options.cache.isdigit() else options.cache
    depth: int | Literal["auto"] = "auto" if options.io_depth == "auto" else int(options.io_depth)
    print(f"{'order':<20}{'cells/s':>12}{'first batch':>14}{'decoded GB':>12}{'waited':>10}{'cells':>10}")
    orders: dict[str, dict[str, Any]] = {
        "file order": {"shuffle": False},
        "block_size='auto'": {"block_size": "auto"},
        "block_size=16": {"block_size": 16},
        "exact random": {},
    }
    for name, order in orders.items():
        if options.cold:
            for file in files:
                drop_pages(file)
        dataset = AnnDataset(
            files if len(files) > 1 else files[0],
            elem=options.elem,
            obs_columns=[],
            chunk_size=options.window,
            cache=cache,
            io_depth=depth,
            output=options.output,
        )
        with dataset:
            loader = dataset.get_optimized_dataloader(options.batch_size, seed=0, **order)
            cells, first, taken = _run(loader, options.seconds)
            stats = dataset.stats()
        decoded, waited = stats["bytes_decoded"] / 1e9, stats["waited_us"] / 1e6
        shown = f"{cells / taken:>12,.0f}{first:>12.2f} s{decoded:>12.2f}{waited:>8.2f} s{cells:>10,}"
        print(f"{name:<20}{shown}", flush=True)
    where = f"window {options.window:,}, batch {options.batch_size}, {options.output}, cache {options.cache}"
    pages = "the file's pages dropped from the page cache before each order" if options.cold else "page cache as it was"
    print(f"({where}, io depth {depth}, {pages})")


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


def _run(loader: Any, seconds: float) -> tuple[int, float, float]:
    begin = time.perf_counter()
    cells, first = 0, 0.0
    for batch in loader:
        cells += batch["X"].shape[0]
        first = first or time.perf_counter() - begin
        if time.perf_counter() - begin > seconds:
            break
    return cells, first, time.perf_counter() - begin
