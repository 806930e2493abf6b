"""Training on a GPU: what page-locked memory and CSR batches, filled out on the device, bring.

    python benches/gpu.py                        # SIZE=small, or the size in the environment

The model is a wide linear layer and a narrow one, trained with Adam in float32. Timed are whole windows, from the
second full one of an epoch on, each to the end of the device's work. Beside it stand loading alone, with nothing moved,
and training alone, on one batch that stays on the device. A machine without a CUDA device has nothing to measure.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from contender import Batch
from keep import keep, layout
from machine import OthersMeter
from oracle import check
from ours import ORDERS, Annfeed
from settings import Settings, add_arguments, chosen, warm
from windows import add_rounds, seconds_a_batch, seconds_of

from annfeed import densify

ORDER = "block auto"
#: Units of the model's hidden layer, and classes that it tells.
HIDDEN, CLASSES = 512, 16


class OnDevice(Annfeed):
    """annfeed, with batches dense on the device; `moved` off leaves them where they were made."""

    moved = True

    def epoch(self) -> Iterator[Batch]:
        for x, rows in super().epoch():
            yield densify(x, "cuda", non_blocking=self.options["pin_memory"]) if self.moved else x, rows

    def _loader(self, settings: Settings) -> Any:
        return self.dataset.get_optimized_dataloader(
            settings.batch, seed=settings.seed, block_size=self.block, pin_memory=self.options["pin_memory"]
        )


def contenders() -> list[OnDevice]:
    """Dense and CSR, from ordinary and from page-locked memory."""
    kind, block = ORDERS[ORDER]
    return [
        OnDevice(f"{output}, {'pinned' if pin else 'ordinary'}", order=kind, block=block, output=output,
                 options={"pin_memory": pin})
        for output in ("dense", "csr")
        for pin in (False, True)
    ]  # fmt: skip


class Checked(OnDevice):
    """The same batches, back on the CPU: what the check compares has been on the device."""

    def epoch(self) -> Iterator[Batch]:
        for x, rows in super().epoch():
            yield x.cpu(), rows


class Training:
    """A model on the device, and what is done with a batch."""

    def __init__(self, n_vars: int) -> None:
        torch.manual_seed(0)
        layers = torch.nn.Linear(n_vars, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, CLASSES)
        self.model = torch.nn.Sequential(*layers).to("cuda")
        self.optimizer = torch.optim.Adam(self.model.parameters())

    def step(self, x: torch.Tensor) -> None:
        """Learn to tell cells by their first gene, with nothing read back."""
        target = x[:, 0].long() % CLASSES
        loss = torch.nn.functional.cross_entropy(self.model(torch.log1p(x)), target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def seconds_a_step(training: Training, x: torch.Tensor, seconds: float) -> float:
    """Mean of training on ``x`` alone."""
    training.step(x)
    torch.cuda.synchronize()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(100):
            training.step(x)
        torch.cuda.synchronize()
        count += 100
    return (time.perf_counter() - began) / count


def main() -> None:
    """Check, measure round after round, and write bench-data/gpu.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_rounds(parser)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device was found, where this measures one")
    seconds = seconds_of(given)
    label, settings = chosen(given)
    warm(settings.file)
    lined_up = contenders()
    for each in lined_up:
        check(Checked(**{field: getattr(each, field) for field in ("name", "order", "block", "output", "options")}),
              settings)  # fmt: skip
        each.open(settings, with_rows=False)
    training = Training(lined_up[0].dataset.shape[1])
    x, _ = next(lined_up[0].epoch())
    rows: list[dict[str, Any]] = []
    for turn in range(given.rounds):
        step = seconds_a_step(training, x, min(seconds, 1.0))
        for each in lined_up[turn % len(lined_up) :] + lined_up[: turn % len(lined_up)]:
            meter = OthersMeter()
            each.moved = False
            loading = seconds_a_batch(each, settings, seconds, wait=torch.cuda.synchronize)
            each.moved = True
            moving = seconds_a_batch(each, settings, seconds, wait=torch.cuda.synchronize)
            both = seconds_a_batch(each, settings, seconds, training.step, torch.cuda.synchronize)
            times = {"loading_ms": loading, "moving_ms": moving, "step_ms": step, "training_ms": both}
            rows.append(
                {"data": label, "round": turn, "batches": each.name, "order": ORDER}
                | {name: round(1000 * value, 4) for name, value in times.items()}
                | {"ratio": round(both / max(loading, step), 4), "cells_s": round(settings.batch / both)}
                | {"window": settings.window, "batch": settings.batch, "others": meter.share()}
            )
    keep("gpu", label, rows, file=layout(settings.file), rounds=given.rounds, seconds=seconds,
         device=torch.cuda.get_device_name())  # fmt: skip
    print(table(pd.DataFrame(rows)))


def table(rows: pd.DataFrame) -> str:
    """Medians over the rounds; ratios are taken within a round."""
    lines = [
        "| batches | loading alone, ms a batch | loaded and on the device, ms | step alone, ms | training, ms a batch "
        "| / the longer of loading and step | cells/s |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, found in rows.groupby("batches", sort=False):
        middle = found.median(numeric_only=True)
        lines.append(
            f"| {ORDER}, {name} | {middle['loading_ms']:.2f} | {middle['moving_ms']:.2f} | {middle['step_ms']:.2f} "
            f"| {middle['training_ms']:.2f} | {middle['ratio']:.2f} | {middle['cells_s']:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
