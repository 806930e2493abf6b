"""The command ``annfeed``: ``inspect`` describes a file, ``bench`` measures its orders, ``rewrite`` writes it again."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal

from annfeed._core import __version__
from annfeed.inspection import inspect_file


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 after printing an error to stderr.

    Examples
    --------
    >>> main(["inspect", "/no/such/file.h5ad"])
    1
    """
    try:
        try:
            options = _parser().parse_args(arguments)
            options.run(options)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe (| head). Without this Python would report it again at its end.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (OSError, ValueError, KeyError, MemoryError) as error:
        print(f"annfeed: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="annfeed", description="Minibatches from .h5ad files for PyTorch.")
    parser.add_argument("--version", action="version", version=f"annfeed {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = commands.add_parser(
        "inspect", help="print how a file is stored, the cost of each order, settings, and obs columns"
    )
    inspect.set_defaults(run=_inspect)
    bench = commands.add_parser("bench", help="measure cells per second from a file, in several orders")
    bench.set_defaults(run=_bench)
    for command in (inspect, bench):
        command.add_argument("file", help="an .h5ad file")
        command.add_argument("--elem", default="X", help="place of the matrix (default: X)")
        command.add_argument("--window", type=int, default=6000, help="rows read together (default: 6000)")
    rewrite = commands.add_parser(
        "rewrite", help="write a file again in a form that reads faster; the source is not changed"
    )
    rewrite.set_defaults(run=_rewrite)
    rewrite.add_argument("source", metavar="IN", help="an .h5ad file")
    rewrite.add_argument("target", metavar="OUT", help="the new file")
    rewrite.add_argument("--codec", default="zstd", help="zstd, bitshuffle, lz4, gzip or lzf (default: zstd)")
    rewrite.add_argument(
        "--rows", choices=("kept", "shuffled"), default="kept", help="shuffled: in a random order (default: kept)"
    )
    rewrite.add_argument("--seed", type=int, default=0, help="seed of the random order (default: 0)")
    rewrite.add_argument("--level", type=int, help="level of zstd (1 to 22, default: 3) or gzip (1 to 9, default: 4)")
    rewrite.add_argument("--chunk-rows", type=int, help="mean rows of a chunk (default: by the length of rows)")
    rewrite.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    rewrite.add_argument("--threads", type=int, help="threads that decode and compress (default: all cores)")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    bench.add_argument("--batch-size", type=int, default=128, help="rows of a batch (default: 128)")
    bench.add_argument("--seconds", type=float, default=5.0, help="seconds for each order (default: 5)")
    bench.add_argument("--cache", default="0", help="memory for decoded rows: bytes, '4GiB' or 'auto' (default: 0)")
    bench.add_argument("--cold", action="store_true", help="drop the file from the page cache before each order")
    bench.add_argument("--io-depth", default="auto", help="reads in flight on slow storage, or 'auto' (default: auto)")
    bench.add_argument("--output", choices=("dense", "csr"), default="dense", help="kind of batches (default: dense)")
    return parser


def _inspect(options: argparse.Namespace) -> None:
    found = inspect_file(options.file, options.elem, options.window)
    print(json.dumps(dataclasses.asdict(found), indent=2) if options.json else found)


def _bench(options: argparse.Namespace) -> None:
    from annfeed.dataset import AnnDataset

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
            drop_pages(options.file)
        dataset = AnnDataset(
            options.file,
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


def _rewrite(options: argparse.Namespace) -> None:
    from annfeed.rewriting.write import rewrite

    rewrite(
        options.source,
        options.target,
        codec=options.codec,
        rows=options.rows,
        seed=options.seed,
        level=options.level,
        chunk_rows=options.chunk_rows,
        overwrite=options.overwrite,
        threads=options.threads,
    )
    sizes = [os.path.getsize(path) for path in (options.source, options.target)]
    print(f"{options.target}: {sizes[1]:,} bytes, {sizes[1] / sizes[0]:.2f} of {options.source}; each row was compared")


def _run(loader: Any, seconds: float) -> tuple[int, float, float]:
    begin = time.perf_counter()
    cells, first = 0, 0.0
    for batch in loader:
        cells += batch["X"].shape[0]
        first = first or time.perf_counter() - begin
        if time.perf_counter() - begin > seconds:
            break
    return cells, first, time.perf_counter() - begin
