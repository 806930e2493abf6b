"""Very many rows, of files in many layouts and by loaders with many settings, beside what h5py and scipy read.

    PYTHONPATH=. python tests/soak.py soak.log --rows 1e9      # to go on, give it the same log
    PYTHONPATH=. python tests/soak.py second.log --first 1_000_000    # beside it, on another core
    PYTHONPATH=. python tests/soak.py soak.log second.log --summary

Each trial draws one of 20 files or several of them, and an output, dtype, order, batch size, rows, genes, cache,
threads and workers; all from its number, so that ``--only NUMBER`` repeats it. Each row of each batch is compared with
the matrix that h5py and scipy read, and each epoch must hold each row as often as it should. A line of the log is a
trial; the first difference ends the program.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from annfeed import AnnDataset
from tests.support.h5ad_files import PIPELINES, Layout, Storage, Stored, dense_matrix, write_h5ad

N_FILES, N_GENES = 20, 120
#: Of every five files.
BY_COLUMNS, DENSE = 3, 4
#: What a trial delivers, at least: so many rows, or so many batches where these are small.
ROWS, BATCHES = 2_000_000, 4_000
DTYPES = [torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.uint8]


def write_files(folder: Path) -> list[Path]:
    """Write 20 files of counts up to 200, each with another format, dtype, chunk length and pipeline."""
    rng = np.random.default_rng(2026)
    pipelines = list(PIPELINES.values())
    paths = []
    for number in range(N_FILES):
        n_rows = int(rng.integers(500, 3000))
        counts = sp.random_array((n_rows, N_GENES), density=0.12, rng=rng, format="csr", dtype=np.float64)
        counts.data = np.ceil(counts.data * 200)
        chunk = int(rng.choice([1, 7, 500, 4000, 100_000]))
        filters = pipelines[number * 7 % len(pipelines)]
        dtype = np.dtype(rng.choice(["<f4", ">f4", "<f8", "<i4", "<u2", "<i8"]))
        if number % 5 == DENSE:
            matrix: Any = counts.toarray().astype(dtype)
            storage = Storage((max(1, min(chunk, n_rows)), int(rng.choice([7, N_GENES]))), filters, resizable=1)
            layout = Layout(storage)
        else:
            form = sp.csc_array(counts) if number % 5 == BY_COLUMNS else counts
            matrix = Stored.of(form, *rng.choice(["i4", "i8"], 2), dtype=dtype)
            # Tiny chunks of many values would be all that is tested.
            storage = Storage((max(chunk, 50),), filters, resizable=1)
            layout = Layout(storage, storage, storage)
        obs = {"number": np.arange(n_rows) + 10_000 * number}
        paths.append(write_h5ad(folder / f"{number:02}.h5ad", matrix, layout, obs=obs))
    return paths


class Trial:
    """What a trial reads, and how; all drawn from its number."""

    def __init__(self, number: int, n_rows: list[int]) -> None:
        rng = self._rng = np.random.default_rng([2026, number])
        self.number = number
        several = int(rng.choice([1, 1, 2, 5]))
        self.files = sorted(rng.choice(N_FILES, several, replace=False).tolist())
        total = sum(n_rows[file] for file in self.files)
        #: Rows of the files one after the other, as positions of the dataset have them.
        self.rows = np.arange(total)
        subset = self._of("all", "some", "repeated")
        if subset != "all":
            self.rows = rng.choice(total, int(rng.integers(1, total + 1)), replace=subset == "repeated")
        self.genes = np.arange(N_GENES)
        are_chosen = rng.random() < 0.4
        if are_chosen:
            self.genes = rng.choice(N_GENES, int(rng.integers(1, N_GENES + 1)), replace=False)
        self.output, self.dtype = self._of("dense", "csr"), DTYPES[int(rng.integers(len(DTYPES)))]
        self.weighted = bool(rng.random() < 0.1)
        self.dataset = {
            "output": self.output,
            "dtype": self.dtype,
            "window": self._of(64, 1000, 16_384),
            # Columns become rows once, in memory that the cache must have.
            "cache": "1GiB" if BY_COLUMNS in [file % 5 for file in self.files] else self._of(0, "200KiB", "1GiB"),
            "threads": self._of(1, 2, None),
            "obs_subset": None if subset == "all" else self.rows,
            "var_subset": self.genes if are_chosen else None,
        }
        self.loader = {
            "batch_size": self._of(1, 17, 128, 1000),
            "block_size": self._of(1, 1, 4, 64, "auto"),
            "shuffle": bool(rng.random() < 0.85),
            "drop_last": bool(rng.random() < 0.2),
            "seed": int(rng.integers(2**32)),
            "num_workers": 2 if rng.random() < 0.02 else 0,
        }
        if self.weighted:
            self.loader |= {"weights": rng.random(len(self.rows)), "shuffle": True}

    def _of(self, *choices: Any) -> Any:
        return choices[int(self._rng.integers(len(choices)))]

    def __str__(self) -> str:
        settings = {key: value for key, value in {**self.dataset, **self.loader}.items() if np.ndim(value) == 0}
        return f"trial {self.number}: files {self.files}, {len(self.rows)} rows, {len(self.genes)} genes, {settings}"


def run(trial: Trial, paths: list[Path], matrices: list[np.ndarray]) -> int:
    """Compare all that a trial delivers; return the number of rows."""
    matrix = np.concatenate([matrices[file] for file in trial.files])[:, trial.genes]
    expected = torch.from_numpy(matrix).to(trial.dtype)
    number = np.concatenate([np.arange(len(matrices[file])) + 10_000 * file for file in trial.files])
    chosen = [paths[file] for file in trial.files]
    delivered = 0
    with AnnDataset(chosen[0] if len(chosen) == 1 else chosen, obs_columns=["number"], **trial.dataset) as dataset:
        loader = dataset.get_optimized_dataloader(return_index=True, **trial.loader)
        for epoch in range(1000):
            loader.sampler.set_epoch(epoch)
            seen = [np.empty(0, np.int64)]
            for batch in loader:
                index = batch["index"].numpy()
                x = batch["X"].to_dense() if trial.output == "csr" else batch["X"]
                assert x.dtype == trial.dtype, "another dtype"
                assert torch.equal(x, expected[index]), f"epoch {epoch}: rows {index.tolist()} differ"
                assert np.array_equal(batch["obs_number"].numpy(), number[index]), f"epoch {epoch}: obs differ"
                seen.append(index)
            found = np.concatenate(seen)
            check_epoch(trial, found)
            delivered += len(found)
            if delivered >= min(ROWS, BATCHES * trial.loader["batch_size"]):
                break
    return delivered


def check_epoch(trial: Trial, found: np.ndarray) -> None:
    """An epoch has each row as often as the dataset has it, but for what ``drop_last`` leaves out."""
    size, n = trial.loader["batch_size"], len(trial.rows)
    assert len(found) == (n // size * size if trial.loader["drop_last"] else n), "another number of rows"
    if trial.weighted:
        assert np.isin(found, trial.rows).all(), "rows that are not of the dataset"
        return
    n_all = int(max(trial.rows.max(), found.max(initial=0))) + 1
    lacking = np.bincount(trial.rows, minlength=n_all) - np.bincount(found, minlength=n_all)
    assert (lacking >= 0).all() and lacking.sum() == n - len(found), "a row came too often"
    if not trial.loader["shuffle"]:
        assert np.array_equal(found, trial.rows[: len(found)]), "not the order of the dataset"


def lines(log: Path) -> Iterator[dict[str, Any]]:
    """The trials that were logged."""
    if log.exists():
        yield from map(json.loads, log.read_text().splitlines())


def summary(log: Path) -> str:
    """What a log says: trials, rows, time, and memory from first to last."""
    trials = list(lines(log))
    if not trials:
        return "nothing was logged"
    rows, seconds = sum(trial["rows"] for trial in trials), sum(trial["seconds"] for trial in trials)
    held = [trials[int(q * (len(trials) - 1))]["resident_mib"] for q in (0.1, 0.5, 1)]
    return (
        f"{len(trials):,} trials, {rows:,} rows, no difference, {seconds / 3600:.2f} hours; resident memory after "
        f"a tenth, half and all of them: {held[0]}, {held[1]} and {held[2]} MiB"
    )


def resident_mib() -> int:
    """Memory of this process that is resident now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


def main() -> None:
    """Run trials until so many rows were compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, nargs="+", help="one; with --summary also several")
    parser.add_argument("--rows", type=float, default=1e9)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial of a log")
    parser.add_argument("--only", type=int, help="run one trial, and log nothing")
    parser.add_argument("--summary", action="store_true", help="say what the log says, and run nothing")
    given = parser.parse_args()
    if given.summary:
        for log in given.logs:
            print(summary(log))
        return
    if len(given.logs) > 1:
        parser.error("several logs go with --summary only: each process has its own")
    log = given.logs[0]
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    logged = list(lines(log))
    number, rows, began = given.first + len(logged), sum(trial["rows"] for trial in logged), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder))
        matrices = [dense_matrix(path).astype(np.float64) for path in paths]
        n_rows = [len(matrix) for matrix in matrices]
        while given.only is not None or (rows < given.rows and time.monotonic() - began < given.seconds):
            trial, start = Trial(number if given.only is None else given.only, n_rows), time.monotonic()
            try:
                delivered = run(trial, paths, matrices)
            except BaseException as error:
                error.add_note(str(trial))
                raise
            if given.only is not None:
                print(f"{trial}: {delivered} rows, no difference")
                return
            line = {"trial": number, "rows": delivered, "seconds": round(time.monotonic() - start, 3)}
            with log.open("a") as file:
                file.write(json.dumps(line | {"resident_mib": resident_mib()}) + "\n")
            number, rows = number + 1, rows + delivered
    print(summary(log))


if __name__ == "__main__":
    main()
