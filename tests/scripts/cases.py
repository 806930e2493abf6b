"""The loaders that every rank goes through in ranks_script.py, and that test_torchrun.py looks at."""

from typing import Any

import numpy as np

from annfeed import CellSets, Controls

EPOCHS = 3
#: Pairs of cells, with a control each.
SETS = CellSets(by="label", size=2, controls=Controls(where={"label": "type 2"}))


def rotated(epoch: int) -> np.ndarray:
    """A user's order: 23 rows, from another one on in each epoch, the first of them twice."""
    return (np.append(np.arange(22), 0) + 5 * epoch) % 40


def cases() -> dict[str, dict[str, Any]]:
    """What is given to AnnDataset, to its split and to its loader, by name."""
    base: dict[str, Any] = {"batch_size": 4, "seed": 3}
    found: dict[str, dict[str, Any]] = {
        "rows": {"loader": base},
        "seed 0": {"loader": {**base, "seed": 0}},
        "no seed": {"loader": {"batch_size": 4}},
        "blocks": {"loader": {**base, "block_size": 3}},
        "workers": {"loader": {**base, "num_workers": 2}},
        "fresh workers": {"loader": {**base, "num_workers": 2, "persistent_workers": False}},
        "in order": {"loader": {**base, "shuffle": False}},
        "weights": {"loader": {**base, "weights": np.arange(40), "n_samples": 50}},
        "balance": {"loader": {**base, "balance": "label", "block_size": 2, "seed": None}},
        "order": {"loader": {**base, "order": rotated}},
        "sets": {"loader": {**base, "sets": SETS}},
        "split": {"loader": base, "split": {"fractions": {"train": 0.6, "test": 0.4}, "stratify": "label"}},
    }
    for n in (1, 2, 7, 8, 9, 25, 33):
        for uneven in ("pad", "drop"):
            found[f"{n} {uneven}"] = {
                "dataset": {"obs_subset": range(n)}, "loader": {**base, "uneven": uneven}
            }  # fmt: skip
        found[f"{n} drop_last"] = {"dataset": {"obs_subset": range(n)}, "loader": {**base, "drop_last": True}}
    found["25 pad workers"] = {
        "dataset": {"obs_subset": range(25)}, "loader": {**base, "num_workers": 2, "batch_size": 3}
    }  # fmt: skip
    return found
