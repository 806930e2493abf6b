"""Runs the contenders in turn, round after round, each in a process of its own, and writes bench-data/results.csv.

    python benches/run.py                        # SIZE=small, or the size in the environment
    python benches/run.py --size 200k --seconds 8 --rounds 3
    python benches/run.py --file atlas.h5ad --label "my atlas" --only annfeed scDataset

Rows are checked before anything is timed. Files are read once before the first round, so the page cache is warm. Then
`report.py` renders tables and chart.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from contenders import BY_NAME, CONTENDERS, Contender, Settings
from machine import OthersMeter, describe
from make_atlas import FOLDER, SIZES, make_atlas, uncompressed

FIELDS = ["data", "round", "name", "order", "block", "output", "cache", "stored", "window", "batch", "workers"]
FIELDS += ["cells", "seconds", "cells_per_s", "first_batch_s", "peak_mb", "grown_mb", "others"]
HERE = Path(__file__).resolve().parent
#: The window of small files: several of them fit.
SMALL_WINDOW = 2_048


def main() -> None:
    """Check, run the rounds, write the results, render them."""
    given = _arguments()
    if given.one:
        _one(given)
        return
    path = given.file or make_atlas(SIZES[given.size], base=given.base)
    label = given.label or SIZES[given.size].label
    settings = _settings(given, path)
    names = [c.name for c in CONTENDERS if not given.only or any(c.name.startswith(name) for name in given.only)]
    names = _checked(names, settings, given)
    for stored in {BY_NAME[name].reads(settings) for name in names}:
        _warm(stored)
    rows: list[dict[str, Any]] = []
    for turn in range(given.rounds):
        # Each round begins elsewhere, so that nobody always runs after the same neighbour.
        start = turn * len(names) // given.rounds
        for name in names[start:] + names[:start]:
            meter = OthersMeter()
            result = _call([name], settings, given, "measure") | {"others": meter.share()}
            rows.append(_row(label, turn, BY_NAME[name], settings, result))
            print(f"round {turn + 1}: {name:48} {result['cells_per_s']:>10,.0f} cells/s", flush=True)
        if not given.only:
            _write(label, rows, settings, given)
    if given.only or not rows:
        print("a part of the contenders: results.csv and the tables are left as they are")
        return
    subprocess.run([sys.executable, HERE / "report.py"], check=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default=os.environ.get("SIZE", "small"))
    parser.add_argument("--file", type=Path, help="a CSR .h5ad of counts to read instead of a made one")
    parser.add_argument("--label", help="what the results call the data")
    parser.add_argument("--base", type=Path, help="real count file to scale up; default: the one inside scanpy")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contenders whose names begin so")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, help="of reading, for each contender and round; default by size")
    parser.add_argument("--window", type=int, help="rows read together; default 16,384, or 2,048 on small files")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="interpreter of the contenders")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    parser.add_argument("--job", choices=["check", "measure"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.seconds is None:
        given.seconds = 8.0 if given.file or given.size == "200k" else 1.5
    return given


def _settings(given: argparse.Namespace, path: Path) -> Settings:
    import h5py

    with h5py.File(path) as file:
        n_obs = int(file["X"].attrs["shape"][0])
    window = given.window or (16_384 if n_obs >= 100_000 else SMALL_WINDOW)
    return Settings(path.resolve(), FOLDER, window=window, batch=given.batch)


def _one(given: argparse.Namespace) -> None:
    """In a process of its own: measure one contender, or check several, and print the result as JSON."""
    values = json.loads(given.settings)
    settings = Settings(**{**values, "file": Path(values["file"]), "folder": Path(values["folder"])})
    if given.job == "measure":
        from measure import measure

        result: Any = measure(BY_NAME[given.one[0]], settings, given.seconds)
    else:
        result = [name for name in given.one if _check(BY_NAME[name], settings)]
    print("\n" + json.dumps(result), flush=True)
    # Threads and workers of a loader that was left in the middle of an epoch are not waited for.
    os._exit(0)


def _check(contender: Contender, settings: Settings) -> bool:
    """Whether the contender is there; it stops everything if its rows are wrong."""
    from oracle import check

    outcome, there = contender.missing(), False
    if outcome is None:
        there = True
        if contender.stored == "uncompressed":
            uncompressed(settings.file, settings.folder)
        outcome = f"{check(contender, settings)} rows are right"
    print(f"check: {contender.name:48} {outcome}", file=sys.stderr, flush=True)
    return there


def _checked(names: list[str], settings: Settings, given: argparse.Namespace) -> list[str]:
    there: list[str] = _call(names, settings, given, "check")
    return there


def _call(names: list[str], settings: Settings, given: argparse.Namespace, job: str) -> Any:
    values = json.dumps(vars(settings) | {"file": str(settings.file), "folder": str(settings.folder)})
    command = [given.python, "-W", "ignore", __file__, "--one", *names, "--settings", values, "--job", job]
    command += ["--seconds", str(given.seconds)]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{', '.join(names)}: {job} failed (its message is above)")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _warm(path: Path) -> None:
    """Read a file, or those in a folder, once, so that they lie in the page cache."""
    for each in path.rglob("*") if path.is_dir() else [path]:
        if each.is_file():
            with each.open("rb", buffering=0) as file:
                while file.read(1 << 24):
                    pass


def _row(label: str, turn: int, contender: Contender, settings: Settings, result: dict[str, Any]) -> dict[str, Any]:
    row = {name: getattr(contender, name) for name in ("name", "order", "block", "output", "stored", "workers")}
    cache = settings.cache if contender.cache == "on" else contender.cache
    window = settings.window if contender.fetch == "window" else settings.batch
    return row | result | {"data": label, "round": turn, "cache": cache, "window": window, "batch": settings.batch}


def _write(label: str, rows: list[dict[str, Any]], settings: Settings, given: argparse.Namespace) -> None:
    """Results of other data stay in the file; those of this label are replaced. Called after every round."""
    path = FOLDER / "results.csv"
    kept = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if row["data"] != label]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows([*kept, *rows])
    machines = FOLDER / "machine.json"
    known = json.loads(machines.read_text()) if machines.exists() else {}
    known[label] = describe(given.python) | {"file": _layout(settings.file), "date": str(date.today())}
    known[label] |= {"rounds": rows[-1]["round"] + 1, "seconds": given.seconds}
    machines.write_text(json.dumps(known, indent=1) + "\n")


def _layout(path: Path) -> str:
    """The shape and storage of the file in words."""
    import h5py

    with h5py.File(path) as file:
        data, (n_obs, n_vars) = file["X/data"], file["X"].attrs["shape"]
        filters = f"{data.compression} {data.compression_opts}" if data.compression else "uncompressed"
        return (
            f"{n_obs:,} x {n_vars:,} CSR {data.dtype}, {len(data) / n_obs:,.0f} values a row, {filters}, "
            f"chunks of {data.chunks[0]:,} ({data.chunks[0] * n_obs / len(data):.0f} rows)"
        )


if __name__ == "__main__":
    main()
