"""Runs the contenders in turn, round after round, each in a process of its own, and writes bench-data/results.csv.

    python benches/run.py                        # SIZE=small, or the size in the environment
    python benches/run.py --size 200k --seconds 8 --rounds 3
    python benches/run.py --file atlas.h5ad --label "my atlas" --only annfeed scDataset

Rows are checked before anything is timed. Files are read once before the first round, so the page cache is warm. Then
`report.py` renders tables and chart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from contender import Contender
from keep import keep, layout
from lineup import BY_NAME, CONTENDERS
from machine import OthersMeter
from settings import Settings, add_arguments, chosen, is_large, warm

FIELDS = ["data", "round", "name", "order", "block", "output", "cache", "stored", "window", "batch", "workers"]
FIELDS += ["cells", "seconds", "cells_per_s", "first_batch_s", "peak_mb", "grown_mb", "others"]
HERE = Path(__file__).resolve().parent


def main() -> None:
    """Check, run the rounds, write the results, render them."""
    given = _arguments()
    if given.one:
        _one(given)
        return
    label, settings = chosen(given)
    names = [c.name for c in CONTENDERS if not given.only or any(c.name.startswith(name) for name in given.only)]
    names = _checked(names, settings, given)
    for stored in {BY_NAME[name].reads(settings) for name in names}:
        warm(stored)
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
            about = {"file": layout(settings.file), "rounds": turn + 1, "seconds": given.seconds}
            keep("results", label, rows, python=given.python, **about)
    if given.only or not rows:
        print("a part of the contenders: results.csv and the tables are left as they are")
        return
    subprocess.run([sys.executable, HERE / "report.py"], check=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contenders whose names begin so")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, help="of reading, for each contender and round; default by size")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="interpreter of the contenders")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    parser.add_argument("--job", choices=["check", "measure"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.seconds is None:
        given.seconds = 8.0 if is_large(given) else 1.5
    return given


def _one(given: argparse.Namespace) -> None:
    """In a process of its own: measure one contender, or check several, and print the result as JSON."""
    settings = Settings.from_json(given.settings)
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
        outcome = f"{check(contender, settings)} rows are right"
    print(f"check: {contender.name:48} {outcome}", file=sys.stderr, flush=True)
    return there


def _checked(names: list[str], settings: Settings, given: argparse.Namespace) -> list[str]:
    there: list[str] = _call(names, settings, given, "check")
    return there


def _call(names: list[str], settings: Settings, given: argparse.Namespace, job: str) -> Any:
    command = [given.python, "-W", "ignore", __file__, "--one", *names, "--settings", settings.as_json(), "--job", job]
    command += ["--seconds", str(given.seconds)]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{', '.join(names)}: {job} failed (its message is above)")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _row(label: str, turn: int, contender: Contender, settings: Settings, result: dict[str, Any]) -> dict[str, Any]:
    row = {name: getattr(contender, name) for name in ("name", "order", "block", "output", "stored", "workers")}
    cache = settings.cache if contender.cache == "on" else contender.cache
    window = settings.window if contender.fetch == "window" else settings.batch
    row |= result | {"data": label, "round": turn, "cache": cache, "window": window, "batch": settings.batch}
    return {name: row.get(name) for name in FIELDS}


if __name__ == "__main__":
    main()
