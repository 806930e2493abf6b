"""What loading costs a training whose step takes t: seconds a batch, against the longer of loading and step alone.

    python benches/training.py                   # SIZE=small, or the size in the environment

The step is a sleep: what a GPU's step looks like to the host, which waits without the cores. Nothing is subtracted:
loading alone and such sleeps alone are measured right before, and what those sleeps take is t. Timed are whole windows,
from the second full one of an epoch on.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import pandas as pd
from contender import Contender
from keep import keep, layout
from machine import OthersMeter
from oracle import check
from ours import annfeed_in
from settings import Settings, add_arguments, chosen, warm
from windows import add_rounds, seconds_a_batch, seconds_of

#: Steps as parts of what loading a batch takes.
STEPS = [0.25, 0.5, 1, 2, 4]
ORDER = "block auto"
#: At most so many times the longer of the two.
AIM = 1.1
#: How long sleeps alone are measured, in seconds, and how many of them at least.
SLEEPS, LEAST_SLEEPS = 0.5, 20


def sleep_alone(step: float) -> float:
    """Mean seconds that a sleep of ``step`` seconds takes while nothing is loaded."""
    count = max(LEAST_SLEEPS, int(SLEEPS / step))
    began = time.perf_counter()
    for _ in range(count):
        time.sleep(step)
    return (time.perf_counter() - began) / count


def main() -> None:
    """Check, measure round after round, and write bench-data/training.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_rounds(parser)
    given = parser.parse_args()
    seconds = seconds_of(given)
    label, settings = chosen(given)
    warm(settings.file)
    rows: list[dict[str, Any]] = []
    for output in ("dense", "csr"):
        contender = annfeed_in(ORDER, output)
        check(contender, settings)
        contender.open(settings, with_rows=False)
        about = seconds_a_batch(contender, settings, seconds)
        for turn in range(given.rounds):
            rows += [{"data": label, "round": turn} | row for row in _round(contender, settings, about, turn, seconds)]
    keep("training", label, rows, file=layout(settings.file), rounds=given.rounds, seconds=seconds)
    print(table(pd.DataFrame(rows)))


def _round(contender: Contender, settings: Settings, about: float, turn: int, seconds: float) -> list[dict[str, Any]]:
    """Every step once, right after loading alone; rounds begin at another one. ``about`` is what steps are parts of."""
    rows = []
    for part in STEPS[turn % len(STEPS) :] + STEPS[: turn % len(STEPS)]:
        meter = OthersMeter()
        loading = seconds_a_batch(contender, settings, seconds)
        step = sleep_alone(part * about)
        training = seconds_a_batch(contender, settings, seconds, lambda _, step=part * about: time.sleep(step))
        times = {"loading_ms": loading, "step_ms": step, "training_ms": training}
        rows.append(
            {"output": contender.output, "order": ORDER, "part": part}
            | {name: round(1000 * value, 4) for name, value in times.items()}
            | {"ratio": round(training / max(loading, step), 4)}
            | {"window": settings.window, "batch": settings.batch, "others": meter.share()}
        )
    return rows


def table(rows: pd.DataFrame) -> str:
    """Medians over the rounds; ratios are taken within a round."""
    lines = [
        "| batches | step / loading | loading alone, ms a batch | step alone, ms | training, ms a batch "
        "| / the longer | in the rounds | aim |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (output, part), found in rows.sort_values(["output", "part"], ascending=[False, True]).groupby(
        ["output", "part"], sort=False
    ):
        middle, ratio = found.median(numeric_only=True), found["ratio"]
        lines.append(
            f"| {ORDER}, {output} | {part:g} | {middle['loading_ms']:.2f} | {middle['step_ms']:.2f} "
            f"| {middle['training_ms']:.2f} | {ratio.median():.2f} | {ratio.min():.2f} to {ratio.max():.2f} "
            f"| {AIM:g} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
