"""Saved states of loaders, and the rows that came before and after: what a version of annfeed keeps to.

    python tests/golden/make_states.py [CASE ...] > tests/golden/states-VERSION.json

Run with that version installed. `test_golden_states.py` loads them with the annfeed of the checkout. States of another
version are made with cases of its own: a case that is here keeps its name and its meaning for ever. Where the order
of a case changed, its later states are in a file named after the change (0.1-spread: blocks that are spread). Cases of
a later version are in a file of that version (0.2-sets: sets of cells).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from torch.utils.data import RandomSampler, SequentialSampler

from annfeed import AnnDataset, CellSets, Controls

#: Rows of the file, and batches delivered before the state is saved.
N_ROWS, N_BATCHES = 53, 3


class Order:
    """A user's order of each epoch."""

    def __call__(self, epoch: int) -> np.ndarray:
        return (np.arange(31) * 7 + epoch) % N_ROWS


def cells(first: int, last: int) -> anndata.AnnData:
    """Rows ``first`` to ``last`` of the table that all cases read; X tells the row in its first column."""
    rows = np.arange(first, last)
    x = np.stack([rows, rows % 5, np.zeros_like(rows), (rows * rows) % 11], axis=1).astype(np.float32)
    obs = pd.DataFrame(
        {
            "kind": pd.Categorical.from_codes(rows % 3, ["a", "b", "c"]),
            "plate": pd.Categorical.from_codes(rows // 8 % 2, ["p", "q"]),
        },
        index=[f"c{row}" for row in rows],
    )
    return anndata.AnnData(sp.csr_matrix(x), obs=obs, var=pd.DataFrame(index=["g0", "g1", "g2", "g3"]))


def write(folder: Path) -> None:
    """Write the table whole, and in two files."""
    cells(0, N_ROWS).write_h5ad(folder / "whole.h5ad", compression="gzip")
    (folder / "parts").mkdir()
    cells(0, 20).write_h5ad(folder / "parts/a.h5ad")
    cells(20, N_ROWS).write_h5ad(folder / "parts/b.h5ad", compression="gzip")


def _loader(data: str | list[str] = "whole.h5ad", dataset: dict | None = None, **options: Any) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        paths = str(folder / data) if isinstance(data, str) else [str(folder / name) for name in data]
        made = AnnDataset(paths, chunk_size=12, **(dataset or {}))
        return made.get_optimized_dataloader(4, **options)

    return make


def _sampled(sampler: Callable[[AnnDataset], Any]) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        made = AnnDataset(str(folder / "whole.h5ad"), chunk_size=12)
        return made.get_optimized_dataloader(4, sampler=sampler(made), seed=2)

    return make


def _in_memory(folder: Path) -> Any:
    return AnnDataset(cells(0, N_ROWS), chunk_size=12).get_optimized_dataloader(4, seed=7)


def _part(folder: Path) -> Any:
    whole = AnnDataset(str(folder / "whole.h5ad"), chunk_size=12)
    return whole.split({"train": 0.7, "test": 0.3}, seed=1)["train"].get_optimized_dataloader(4, seed=7)


#: By name, what makes the loader from the folder of files.
CASES: dict[str, Callable[[Path], Any]] = {
    "file order": _loader(shuffle=False),
    "shuffled": _loader(seed=7),
    "drop_last": _loader(seed=7, drop_last=True),
    "blocks of 3": _loader(seed=7, block_size=3),
    "blocks auto": _loader(seed=7, block_size="auto"),
    "weights": _loader(seed=7, weights=np.arange(1, N_ROWS + 1), n_samples=40),
    "balance": _loader(seed=7, balance="kind"),
    "balance, temperature": _loader(seed=7, balance="kind", temperature=0.5, n_samples=40),
    "own order": _loader(order=Order()),
    "obs_subset": _loader(dataset={"obs_subset": list(range(50, 10, -1))}, seed=7),
    "var_subset": _loader(dataset={"var_subset": ["g3", "g0"]}, seed=7),
    "uneven": _loader(seed=7, uneven="drop"),
    "two files": _loader(["parts/a.h5ad", "parts/b.h5ad"], seed=7),
    "two files, blocks": _loader(["parts/a.h5ad", "parts/b.h5ad"], seed=7, block_size=4),
    "in memory": _in_memory,
    "rank 1 of 2": _loader(seed=7, block_size=2),
    "rank 2 of 3": _loader(seed=7, balance="kind", uneven="drop"),
    "a part of a split": _part,
    "torch's SequentialSampler": _sampled(SequentialSampler),
    "torch's RandomSampler": _sampled(lambda made: RandomSampler(made, num_samples=33)),
}


def _of_sets(controls: dict | None = None, sets: dict | None = None, **options: Any) -> Callable[[Path], Any]:
    beside = None if controls is None else Controls(**{"where": {"kind": "c"}, **controls})
    return _loader(sets=CellSets(**{"by": "kind", "size": 2, "controls": beside, **(sets or {})}), **options)


#: The same for batches of sets of cells, which are saved since 0.2.
SETS: dict[str, Callable[[Path], Any]] = {
    "sets": _of_sets(seed=7),
    "sets, short ones dropped": _of_sets(sets={"size": 3, "short": "drop"}, seed=7),
    "sets, controls of a group": _of_sets({"match": "plate"}, {"by": ["kind", "plate"]}, seed=7),
    "sets, controls of a cell": _of_sets({"match": "plate"}, {"short": "keep"}, seed=7),
    "sets, three controls each": _of_sets({"match": "plate", "size": 3}, {"by": ["plate", "kind"]}, seed=7),
    "sets in file order": _of_sets({"match": "plate"}, shuffle=False),
    "sets, balance": _of_sets({}, {"by": ["kind", "plate"]}, seed=7, balance="plate", n_samples=30),
    "sets, balance, temperature": _of_sets(
        {}, {"by": ["kind", "plate"]}, seed=7, balance="kind", temperature=0.3, n_samples=30
    ),
    # Controls of the fallback are those of the match, too.
    "sets, fallback": _of_sets(
        {"where": {"kind": "c", "plate": "p"}, "match": "plate", "fallback": [[]]}, {"by": "kind", "size": 3}, seed=7
    ),
    "rank 1 of 2, sets": _of_sets({"match": "plate"}, {"size": 1}, seed=7),
}


def rows(batches: Iterator[dict[str, Any]], column: int = 0) -> list[list[int]]:
    """The rows of batches, from X, those of controls last."""
    parts = ([batch["X"], batch["control_X"]] if "control_X" in batch else [batch["X"]] for batch in batches)
    return [[row for x in of for row in x[:, column].int().tolist()] for of in parts]


def column_of(name: str) -> int:
    """Where X has the row."""
    return 1 if name == "var_subset" else 0


@contextmanager
def rank_of(name: str) -> Iterator[None]:
    """Be the rank that a case is of, if it is of one."""
    if name.startswith("rank "):
        os.environ["RANK"], os.environ["WORLD_SIZE"] = name.removeprefix("rank ").partition(",")[0].split(" of ")
    try:
        yield
    finally:
        for variable in ("RANK", "WORLD_SIZE"):
            os.environ.pop(variable, None)


def main() -> None:
    """Print the states of all cases, in epoch 1: after some batches, and at its end."""
    import torch

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        for case in sys.argv[1:] or CASES | SETS:
            make = (CASES | SETS)[case]
            torch.manual_seed(3)
            with rank_of(case):
                loader, column = make(folder), column_of(case)
                first = rows(loader, column)
                batches = iter(loader)
                before = rows((next(batches) for _ in range(N_BATCHES)), column)
                state = loader.state_dict()
                after = rows(batches, column)
                end = loader.state_dict()
                found[case] = {
                    "epoch 0": first, "before": before, "state": state, "after": after, "end": end,
                    "epoch 2": rows(loader, column),
                }  # fmt: skip
    json.dump(found, sys.stdout, indent=None, separators=(",", ":"))


if __name__ == "__main__":
    main()
