"""What a loader is, for people: ``print(loader)``, or the loader in a notebook."""

from __future__ import annotations

from typing import Any

from annfeed.display.report import Facts, Report
from annfeed.process.ranks import rank_and_world


def in_a_line(dataset: object) -> str:
    """Return what a dataset is of, in one line.

    Examples
    --------
    >>> in_a_line([1, 2])
    '[1, 2]'
    """
    tell = getattr(dataset, "in_a_line", None)  # a dataset of ours need not count what it has read for it
    return repr(dataset).partition("\n")[0] if tell is None else str(tell())


def loader_report(
    loader: Any,
    order: str,
    n_batches: int | None,
    batch_size: int | None,
    window: str,
    cache: object,
    threads: int | None,
    n_ahead: int,
    unit: str = "rows",
) -> Report:
    """Return what ``loader`` delivers, and how; ``n_batches`` None for an unknown number, ``unit`` of batches."""
    rank, world = rank_and_world()
    share = f" on rank {rank} of {world}" if world > 1 else ""
    of = "" if unit == "rows" else f" {unit}"
    facts = {
        "dataset": in_a_line(loader.dataset),
        "order": order,
        "batch size": "of the batch sampler" if batch_size is None else f"{batch_size:,}{of}",
        "batches": "unknown" if n_batches is None else f"{n_batches:,}{share}",
        "window": window,
        "cache": str(cache),
        "threads": "as many as there are cores" if threads is None else str(threads),
        "workers": str(loader.num_workers or f"none, {n_ahead} batches made ahead by threads"),
    }
    return Report(f"{type(loader).__name__}:", [Facts(facts)])
