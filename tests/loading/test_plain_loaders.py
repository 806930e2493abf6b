"""Plain torch loaders over a dataset, and in which thread transforms run."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.loading.steps_of_loaders import Plus, count_reads
from tests.support.toys import FORMS, assert_same, dense, flat, hand_over, rows_of, toy
from torch.utils.data import DataLoader

from annfeed import AnnDataset, Transform

# --- plain torch loaders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own_collate", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("form", FORMS)
def test_plain_dataloader(shelf: Path, form: str, num_workers: int, own_collate: bool) -> None:
    adata = toy()
    dataset = AnnDataset(hand_over(adata, form, shelf), transform=Plus())
    collate_fn = dataset.get_collate_fn() if own_collate else None
    loader = DataLoader(
        dataset,
        batch_size=7,
        shuffle=True,
        num_workers=num_workers,
        collate_fn=collate_fn,
        generator=torch.Generator().manual_seed(3),
    )
    batches = list(loader)
    assert len(batches) == len(loader) == 6
    # The same order as torch gives for any dataset of this length.
    indices = DataLoader(range(40), batch_size=7, shuffle=True, generator=torch.Generator().manual_seed(3))
    assert rows_of(batches) == [batch.tolist() for batch in indices]
    for batch in batches:
        x = dense(adata.X)[batch["obs_row"]]
        np.testing.assert_array_equal(batch["X"].numpy(), x)
        np.testing.assert_array_equal(batch["sum"].numpy(), x.sum(1) + batch["obs_row"].numpy())


def test_plain_dataloader_without_batches_gives_items(dataset: AnnDataset) -> None:
    items = list(DataLoader(dataset, batch_size=None))
    assert len(items) == 40
    assert_same(items[5], dataset[5])


def test_plain_dataloader_reads_a_batch_at_once(dataset: AnnDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count_reads(dataset, monkeypatch)
    list(DataLoader(dataset, batch_size=8, shuffle=True))
    assert reads == [8] * 5


def test_subset_and_random_split_of_torch(dataset: AnnDataset) -> None:
    train, test = torch.utils.data.random_split(dataset, [30, 10], generator=torch.Generator().manual_seed(0))
    found = [flat(rows_of(DataLoader(part, batch_size=7))) for part in (train, test)]
    assert found == [list(train.indices), list(test.indices)]


# --- transforms ------------------------------------------------------------------------------------------------------


class WhichThread(Transform):
    """Notes the threads that it runs in."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def __call__(self, data_dict):
        self.threads.add(threading.current_thread().name)
        return data_dict


def test_transforms_run_in_the_thread_that_calls_next(shelf: Path) -> None:
    transform = WhichThread()
    dataset = AnnDataset(hand_over(toy(), "path", shelf), window=8, transform=transform)
    list(dataset.get_optimized_dataloader(batch_size=4))
    assert transform.threads == {threading.current_thread().name}


class NoDict(Transform):
    """A forgotten return."""

    def __call__(self, data_dict):
        data_dict["X"] += 1


def test_transform_that_returns_no_dict(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), transform=NoDict())
    with pytest.raises(TypeError, match=r"NoDict.*returned None"):
        list(dataset.get_optimized_dataloader())
    with pytest.raises(TypeError, match=r"NoDict.*returned None"):
        dataset[0]


def test_obs_edited_between_epochs_is_what_the_next_delivers() -> None:
    adata = toy(6)
    loader = AnnDataset(adata, obs_columns=["label"]).get_optimized_dataloader(batch_size=6, shuffle=False)
    assert [batch["obs_label"][0] for batch in loader] == ["type 0"]
    adata.obs.loc["cell0", "label"] = "unused"
    assert [batch["obs_label"][0] for batch in loader] == ["unused"]
