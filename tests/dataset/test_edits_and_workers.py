"""Workers have what the process had when the epoch began: the AnnData's data, and the dataset's transform."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.toys import dense, hand_over, toy

from annfeed import AnnDataset, Transform

N = 24


class Plus(Transform):
    """Adds a number to X."""

    batched = True

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, batch: dict) -> dict:
        return {**batch, "X": batch["X"] + self.number}


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("form", ["memory", "path"])
def test_an_epoch_of_workers_is_of_its_beginning(form: str, method: str, tmp_path: Path) -> None:
    """Persistent workers serve files; of an AnnData, whose data they would have as it was, they are made anew."""
    adata = toy(N)
    dataset = AnnDataset(hand_over(adata, form, tmp_path), transform=Plus(100), obs_columns=["row"])
    loader = dataset.get_optimized_dataloader(
        2, seed=1, return_index=True, num_workers=1, persistent_workers=True, multiprocessing_context=method
    )

    def edit(number: int) -> None:
        if form == "memory":
            adata.X = adata.X * 2
            adata.obs["row"] = np.arange(N) + number
        if number % 200:
            dataset.transform = Plus(number)
        else:
            assert isinstance(dataset.transform, Plus)
            dataset.transform.number = number  # the same object, another parameter

    edit(300)
    for number in (400, 500):
        expected = dense(adata.X) + dataset.transform.number
        rows = adata.obs["row"].to_numpy().copy()
        batches = iter(loader)
        found = [next(batches)]
        edit(number)  # in the midst of the epoch: for the next one
        found += batches
        index = torch.cat([batch["index"] for batch in found]).numpy()
        assert sorted(index) == list(range(N))
        np.testing.assert_array_equal(torch.cat([batch["X"] for batch in found]).numpy(), expected[index])
        np.testing.assert_array_equal(torch.cat([batch["obs_row"] for batch in found]).numpy(), rows[index])


@pytest.mark.parametrize("prefetch", [1, 8])
def test_batches_made_ahead_have_the_transform_of_the_beginning(prefetch: int) -> None:
    adata = toy(N)
    dataset = AnnDataset(adata, transform=Plus(1), obs_columns=[])
    loader = dataset.get_optimized_dataloader(2, seed=1, return_index=True, prefetch_batches=prefetch)
    batches = iter(loader)
    found = [next(batches)]
    dataset.transform = Plus(1000)
    for batch in [*found, *batches]:
        np.testing.assert_array_equal(batch["X"].numpy(), dense(adata.X)[batch["index"].numpy()] + 1)
    for batch in loader:
        np.testing.assert_array_equal(batch["X"].numpy(), dense(adata.X)[batch["index"].numpy()] + 1000)
