"""torch's flag that sparse tensors are checked is the user's: batches that threads make leave it alone."""

import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.toys import hand_over, toy

from annfeed import AnnDataset, Compose, Log1p, NormalizeTotal

PARTS = torch.tensor([0, 1, 2]), torch.tensor([1, 0]), torch.tensor([1.0, 2.0])


@pytest.mark.parametrize("form", ["path", "memory"])
@pytest.mark.parametrize("transform", [None, Compose([Log1p(), NormalizeTotal()])], ids=["none", "in torch"])
def test_checks_of_others_end_where_they_end(tmp_path: Path, form: str, transform: Compose | None) -> None:
    """While batches are made in a thread, the user makes tensors with ``check_invariants=True``."""
    dataset = AnnDataset(hand_over(toy(), form, tmp_path), output="csr", transform=transform)
    stop = threading.Event()

    def deliver() -> None:
        while not stop.is_set():
            for batch in dataset.get_optimized_dataloader(4, seed=0):
                dataset.get_collate_fn()(list(dataset.__getitems__(batch["obs_row"].tolist())))

    thread = threading.Thread(target=deliver)
    thread.start()
    try:
        for _ in range(5000):
            torch.sparse_csr_tensor(*PARTS, size=(2, 2), check_invariants=True)
            if torch.sparse.check_sparse_tensor_invariants.is_enabled():
                break
    finally:
        stop.set()
        thread.join()
        enabled = torch.sparse.check_sparse_tensor_invariants.is_enabled()
        torch.sparse.check_sparse_tensor_invariants.disable()
    assert not enabled


def test_no_word_of_checks_that_are_left_out(tmp_path: Path) -> None:
    loader = AnnDataset(hand_over(toy(), "path", tmp_path), output="csr").get_optimized_dataloader(4)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Sparse invariant checks")
        for batch in loader:
            x = batch["X"]
            # What torch says of it when it is asked.
            parts = x.crow_indices(), x.col_indices(), x.values()
            again = torch.sparse_csr_tensor(*parts, size=x.shape, check_invariants=True)
            assert np.array_equal(again.to_dense(), x.to_dense())
