"""`AnnDataset` by index: one item, several, none; keys; what a sampler of batches asks for."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.support.toys import FORMS, assert_same, hand_over, rows_of, toy
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from annfeed import AnnDataset

# --- indexing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("index", "row"),
    [
        (0, 0),
        (39, 39),
        (-1, 39),
        (-40, 0),
        (np.int64(5), 5),
        (np.uint8(5), 5),
        (np.int32(-2), 38),
        (torch.tensor(7), 7),
        (np.array(7), 7),
    ],
)
def test_index(shelf: Path, form: str, index, row: int) -> None:
    item = AnnDataset(hand_over(toy(), form, shelf, "csr"))[index]
    assert item["obs_row"] == row
    assert item["X"][0] == row


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (40, IndexError, "index 40 is out of range for a dataset of 40 rows"),
        (-41, IndexError, "index -41 is out of range for a dataset of 40 rows"),
        (1.0, TypeError, "float64"),
        (np.float64(1), TypeError, "float64"),
        ("1", TypeError, "integers"),
        ("cell1", TypeError, "integers"),
        (True, TypeError, "bool"),
        (None, TypeError, "integers"),
        ([0, 40], IndexError, "index 40 is out of range"),
        ([0, 1.5], TypeError, "float64"),
        ([[0, 1]], TypeError, "axes"),
        (["cell1"], TypeError, "integers"),
        ({0, 1}, TypeError, "a set"),
        ([True] * 39, ValueError, "mask of length 39, but there are 40 rows"),
        ((slice(0, 3), 1), TypeError, "object"),
    ],
)
def test_index_that_is_none(index, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AnnDataset(toy())[index]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize(
    ("index", "rows"),
    [
        ([3, 1, 3], [3, 1, 3]),
        ((3, -1), [3, 39]),
        (np.array([2, 0], "int16"), [2, 0]),
        (torch.tensor([2, 0]), [2, 0]),
        (range(4, 0, -2), [4, 2]),
        (slice(2, 5), [2, 3, 4]),
        (slice(None, -3, -1), [39, 38]),
        (np.arange(40) % 13 == 1, [1, 14, 27]),
        (pd.Series(np.arange(40) % 13 == 1, index=[f"cell{i}" for i in range(40)])[::-1], [1, 14, 27]),
        ([], []),
    ],
    ids=str,
)
def test_several_items(shelf: Path, form: str, output: str, index: Any, rows: list[int]) -> None:
    dataset = AnnDataset(hand_over(toy(), form, shelf), output=output)
    items = dataset[index]
    assert len(items) == len(rows)
    for found, row in zip(items, rows, strict=True):
        assert_same(found, dataset[row])


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("with_ours", [False, True])
def test_a_batch_sampler_as_sampler(shelf: Path, with_ours: bool, num_workers: int) -> None:
    # As torch documents it for datasets that read several items at once.
    dataset = AnnDataset(hand_over(toy(), "path", shelf))
    sampler = BatchSampler(SequentialSampler(range(40)), 16, drop_last=False)
    collate = dataset.get_collate_fn() if with_ours else None
    loader = DataLoader(dataset, sampler=sampler, batch_size=None, collate_fn=collate, num_workers=num_workers)
    assert rows_of(loader) == rows_of(DataLoader(dataset, batch_size=16, collate_fn=dataset.get_collate_fn()))
    ours = dataset.get_optimized_dataloader(sampler=sampler, batch_size=None, num_workers=num_workers)
    assert rows_of(ours) == [[*range(16)], [*range(16, 32)], [*range(32, 40)]]


KEYS = {"obs_row": "the obs column 'row'", "index": "the rows' numbers", "is_padding": "the mark of repeated rows"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", KEYS)
def test_a_matrix_key_that_is_taken(shelf: Path, form: str, key: str) -> None:
    source = hand_over(toy(), form, shelf)
    for sources in (source, [source, source]):
        with pytest.raises(ValueError, match=f"the key {key!r}.*{KEYS[key]}"):
            AnnDataset(sources, elem={"X": "X", key: "layers/counts"})
    if key == "obs_row":
        item = AnnDataset(source, elem={key: "X"}, obs_columns=["score"])[3]
        assert list(item) == ["obs_row", "obs_score"]


def test_a_matrix_key_that_a_new_column_takes() -> None:
    adata = toy()
    dataset = AnnDataset(adata, elem={"obs_new": "X"})
    adata.obs["new"] = 1
    with pytest.raises(ValueError, match="the key 'obs_new'"):
        dataset[0]


def test_iteration_ends(tmp_path: Path) -> None:
    assert [int(item["obs_row"]) for item in AnnDataset(hand_over(toy(5), "path", tmp_path))] == [0, 1, 2, 3, 4]


def test_many_indices_at_once_are_checked_too() -> None:
    dataset = AnnDataset(toy())
    assert [int(item["obs_row"]) for item in dataset.__getitems__([2, -1, 2])] == [2, 39, 2]
    with pytest.raises(IndexError, match="index 40"):
        dataset.__getitems__([0, 40])


def test_rows_at_takes_whole_numbers_only() -> None:
    dataset = AnnDataset(toy(), obs_subset=[7, 3, 5])
    assert dataset.rows_at(np.array([2, 0])).tolist() == [5, 7]
    with pytest.raises(IndexError):  # and does not cut off what is behind the point
        dataset.rows_at(np.array([0.9]))
