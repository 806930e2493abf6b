"""What a dataset is, for people: ``print(dataset)``, or the dataset in a notebook."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from annfeed.display.report import Facts, Report
from annfeed.transforms.base import steps_of
from annfeed.user_arrays import first_few

#: Names that are listed at most, of sources, and of genes or obs columns.
_SOURCES, _NAMES = 3, 10


def dataset_report(dataset: Any) -> Report:
    """Return what a dataset holds and delivers; nothing is read."""
    reader = dataset.reader
    columns: list[object] = []
    with suppress(KeyError):  # an AnnData may have lost one
        columns = reader.obs.columns
    of_obs = f", categories={reader.categories_as!r}" if columns else ""
    held = dataset.stats()["cache_bytes"]
    facts = {
        "sources": first_few(dataset.sources, _SOURCES, str),
        "obs columns": first_few(columns, _NAMES, str) or "none",
        "batches": f"{reader.output}, {str(reader.dtype).removeprefix('torch.')}{of_obs}",
        "transform": ", ".join(map(repr, steps_of(reader.transform))) or "none",
        "cache": f"{dataset.cache} (holds {held:,} bytes)",
        **_preloaded(reader),
        "state": "closed" if reader.is_closed else "open",
    }
    return Report(dataset.in_a_line(), [Facts(facts)])


def _preloaded(reader: Any) -> dict[str, str]:
    held = reader.preloaded_bytes
    if held is None:
        return {}
    where = "memory" if reader.device is None else f"the memory of {reader.device}"
    return {"preloaded": f"{held:,} bytes in {where}"}
