"""Loaders that are stopped and gone on with."""

import io
import json
from typing import Any

import torch
from tests.support.toys import rows_of

from annfeed import AnnDataset, WindowLoader


def loader_on(data: Any, window: int = 8, subset: Any = range(39), **settings: Any) -> WindowLoader:
    """39 rows: the last batch is short."""
    dataset = AnnDataset(data, window=window, obs_subset=subset)
    return dataset.get_optimized_dataloader(**{"batch_size": 4, "seed": 3, **settings})


def stop_after(loader: WindowLoader, n: int) -> tuple[list[list[int]], dict]:
    """The first ``n`` batches of an epoch, and the state then, through the disk's form and back."""
    batches = iter(loader)
    rows = rows_of(next(batches) for _ in range(n))
    return rows, through_a_file(loader.state_dict())


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    assert len(file.getvalue()) < 5000
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded == state == json.loads(json.dumps(state))
    return loaded
