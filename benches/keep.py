"""Keeps what was measured: a CSV for each kind of benchmark in bench-data/, and on which machine in machine.json.

Results of other data stay in a file; those of the label at hand are replaced.
"""

from __future__ import annotations

import csv
import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

from machine import describe
from make_atlas import FOLDER

MACHINES = FOLDER / "machine.json"


def heading(kind: str, label: str) -> str:
    """What the section of a kind and label is called, on the page and in machine.json."""
    return label if kind == "results" else f"{label}, {kind}"


def keep(kind: str, label: str, rows: list[dict[str, Any]], *, python: Path | None = None, **about: Any) -> None:
    """Write the rows (each with its "data", the label) into ``<kind>.csv``, and ``about`` into machine.json."""
    path = FOLDER / f"{kind.replace(' ', '_')}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if row["data"] != label]
    fields = list(dict.fromkeys(name for row in [*rows, *kept] for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows([*kept, *rows])
    known = json.loads(MACHINES.read_text()) if MACHINES.exists() else {}
    known[heading(kind, label)] = describe(python or Path(sys.executable)) | {"date": str(date.today())} | about
    MACHINES.write_text(json.dumps(known, indent=1) + "\n")


def layout(path: Path) -> str:
    """The shape and storage of a CSR file in words."""
    import h5py

    with h5py.File(path) as file:
        data, (n_obs, n_vars) = file["X/data"], file["X"].attrs["shape"]
        filters = f"{data.compression} {data.compression_opts}" if data.compression else "uncompressed"
        return (
            f"{n_obs:,} x {n_vars:,} CSR {data.dtype}, {len(data) / n_obs:,.0f} values a row, {filters}, "
            f"chunks of {data.chunks[0]:,} ({data.chunks[0] * n_obs / len(data):.0f} rows)"
        )
