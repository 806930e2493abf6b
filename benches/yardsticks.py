"""Yardsticks: what the machine allows, with nothing of a loader around it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from contender import Batch, Contender
from settings import Settings, cores


class CopyInMemory(Contender):
    """The rows of the dense twin in memory, copied into batches on all cores; three batch buffers take turns.

    Blocks of neighbouring rows are shuffled over the file, and rows within windows, as annfeed does it.
    """

    BUFFERS = 3

    def open(self, settings: Settings, with_rows: bool) -> None:
        import h5py

        with h5py.File(self.path(settings)) as file:
            self.x = file["X"][:]
        # Written once: their pages are there before anything is copied.
        self.buffers = [np.ones((settings.batch, self.x.shape[1]), np.float32) for _ in range(self.BUFFERS)]
        self.settings, self.rng = settings, np.random.default_rng(settings.seed)
        self.threads = ThreadPoolExecutor(cores())

    def epoch(self) -> Iterator[Batch]:
        import torch

        turn = 0
        for window in self._windows():
            for start in range(0, len(window), self.settings.batch):
                rows = window[start : start + self.settings.batch]
                batch = self.buffers[turn % self.BUFFERS][: len(rows)]
                list(self.threads.map(self._copy, np.array_split(batch, cores()), np.array_split(rows, cores())))
                yield torch.from_numpy(batch), rows
                turn += 1

    def _copy(self, part: np.ndarray, rows: np.ndarray) -> None:
        # Any other mode copies through a buffer of numpy's own.
        np.take(self.x, rows, axis=0, out=part, mode="clip")

    def _windows(self) -> Iterator[np.ndarray]:
        n_rows = len(self.x)
        starts = self.rng.permutation(-(-n_rows // self.block)) * self.block
        order = (starts[:, None] + np.arange(self.block)).ravel()
        order = order[order < n_rows]
        for start in range(0, n_rows, self.settings.window):
            yield self.rng.permutation(order[start : start + self.settings.window])


class Limit(Contender):
    """Inflating alone (limit.rs): every chunk once, in file order, on all cores. It makes no batches."""

    def missing(self) -> str | None:
        return None if shutil.which("cargo") else "cargo is not there to build limit.rs"

    def prepare(self, settings: Settings) -> None:
        self._values = self._run(settings)["values"]

    def check(self, settings: Settings) -> int:
        """Whether it saw every value; returns the number of rows."""
        import h5py

        self.prepare(settings)
        with h5py.File(settings.file) as file:
            assert self._values == len(file["X/data"]), f"{self.name}: saw {self._values} values"
            return int(file["X"].attrs["shape"][0])

    def measure(self, settings: Settings, seconds: float) -> dict[str, float]:
        """Read the file until ``seconds`` are over; there is no first batch and no memory to speak of."""
        cells = took = 0.0
        while took < seconds:
            result = self._run(settings)
            cells, took = cells + result["cells"], took + result["seconds"]
        return {"cells": int(cells), "seconds": round(took, 4), "cells_per_s": round(cells / took, 1)}

    def _run(self, settings: Settings) -> dict[str, float]:
        command = ["cargo", "bench", "--quiet", "--locked", "--bench", "limit", "--"]
        command += [str(settings.file), str(cores()), self.options["mode"]]
        root = Path(__file__).resolve().parent.parent
        answer = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout
        return json.loads(answer.strip().splitlines()[-1])
