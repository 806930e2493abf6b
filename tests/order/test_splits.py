"""Splits: every row in one part, groups whole, strata in proportion, the same on every machine."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.toys import FORMS, flat, hand_over, rows_of, toy

from annfeed import AnnDataset, Log1p
from annfeed.obs.labels import label_codes
from annfeed.order.splits import split_rows

THREE = {"train": 0.8, "val": 0.1, "test": 0.1}


def parts_of(n_rows: int, fractions: dict[str, float], **how: Any) -> list[list[int]]:
    return [rows.tolist() for rows in split_rows(n_rows, fractions, **how).values()]


# --- tables of exact splits: a change here is a change of every user's split -----------------------------------------

EXACT: list[tuple[dict[str, Any], list[list[int]]]] = [
    ({}, [[0, 2, 4, 5, 6, 7, 8, 9], [3], [1]]),
    ({"seed": 1}, [[0, 2, 3, 4, 6, 7, 8, 9], [5], [1]]),
    ({"strata": [0] * 5 + [1] * 5}, [[0, 2, 3, 4, 5, 7, 8, 9], [1], [6]]),
    ({"groups": [0, 0, 0, 1, 1, 1, 2, 2, 3, 4]}, [[0, 1, 2, 3, 4, 5, 6, 7], [8], [9]]),
]


@pytest.mark.parametrize(("how", "expected"), EXACT)
def test_exact_splits(how: dict[str, Any], expected: list[list[int]]) -> None:
    assert parts_of(10, THREE, **how) == expected


# --- properties ------------------------------------------------------------------------------------------------------

FRACTIONS = st.lists(st.integers(1, 10), min_size=1, max_size=4).map(
    lambda weights: {f"part{i}": weight / sum(weights) for i, weight in enumerate(weights)}
)


@given(st.integers(60, 300), FRACTIONS, st.integers(1, 9), st.integers(0, 2**64 - 1))
def test_strata_are_split_in_proportion(n_rows: int, fractions: dict[str, float], n_strata: int, seed: int) -> None:
    strata = np.random.default_rng(seed).integers(0, n_strata, n_rows) ** 2
    parts = split_rows(n_rows, fractions, strata=strata, seed=seed)
    assert list(parts) == list(fractions)
    assert sorted(row for rows in parts.values() for row in rows.tolist()) == list(range(n_rows))
    for name, rows in parts.items():
        assert (np.diff(rows) > 0).all()
        for stratum in np.unique(strata):
            n_wanted = fractions[name] * np.count_nonzero(strata == stratum)
            assert abs(np.count_nonzero(strata[rows] == stratum) - n_wanted) < 1
        # Odd rows of strata do not add up.
        assert abs(len(rows) - fractions[name] * n_rows) <= len(fractions)


@given(st.integers(0, 400), st.integers(4, 40), FRACTIONS, st.booleans(), st.integers(0, 2**64 - 1))
def test_groups_stay_whole(n_more: int, n_groups: int, fractions: dict, stratify: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(n_groups), random.integers(0, n_groups, n_more)])
    strata = random.integers(0, 3, len(groups)) if stratify else None
    parts = split_rows(len(groups), fractions, groups=groups, strata=strata, seed=seed)
    assert sorted(row for rows in parts.values() for row in rows.tolist()) == list(range(len(groups)))
    found = [set(groups[rows]) for rows in parts.values()]
    assert sum(map(len, found)) == n_groups
    assert all(len(rows) for rows in parts.values())


@pytest.mark.parametrize("seed", range(5))
def test_groups_come_close_to_the_fractions_and_strata(seed: int) -> None:
    random = np.random.default_rng(seed)
    donors = random.integers(0, 100, 20_000)
    # Each donor has a mix of cell types of its own.
    mixes = random.dirichlet(np.ones(4), 100)
    types = np.array([random.choice(4, p=mixes[donor]) for donor in donors])
    for name, rows in split_rows(20_000, THREE, groups=donors, strata=types, seed=seed).items():
        for of in (np.bincount(types[rows]) / np.bincount(types), [len(rows) / 20_000]):
            assert np.abs(np.array(of) - THREE[name]).max() < 0.02


def test_seeds_differ() -> None:
    donors = np.arange(1000) // 20
    for how in ({}, {"strata": donors % 3}, {"groups": donors}, {"groups": donors, "strata": np.arange(1000) % 3}):
        splits = [tuple(split_rows(1000, THREE, seed=seed, **how)["test"].tolist()) for seed in range(10)]
        assert len(set(splits)) == 10


def test_every_row_is_equally_likely_in_every_part() -> None:
    counts = np.zeros(30)
    for seed in range(2000):
        counts[split_rows(30, {"train": 0.9, "test": 0.1}, strata=np.arange(30) % 4, seed=seed)["test"]] += 1
    # 200 expected of each, standard deviation 13.4.
    assert np.abs(counts - 200).max() < 5 * 13.4


# --- of datasets -----------------------------------------------------------------------------------------------------


def donors(n_obs: int = 40) -> anndata.AnnData:
    adata = toy(n_obs)
    adata.obs["donor"] = pd.Categorical([f"d{i % 7}" for i in range(n_obs)], [f"d{i}" for i in reversed(range(9))])
    return adata


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", [{}, {"group_by": "donor"}, {"stratify": "label"}])
def test_parts_deliver_their_rows_and_only_these(shelf: Path, form: str, how: dict[str, str]) -> None:
    """Pitfall 12: training, validation and test loaders deliver the rows of their part, none of another's."""
    adata = donors()
    dataset = AnnDataset(hand_over(adata, form, shelf, "donors"), window=8)
    parts = dataset.split({"train": 0.6, "val": 0.2, "test": 0.2}, seed=3, **how)
    assert all(type(part) is AnnDataset for part in parts.values())
    found = {}
    for name, part in parts.items():
        rows = flat(rows_of(part.get_optimized_dataloader(batch_size=3, seed=1)))
        assert sorted(rows) == flat(rows_of(part.get_optimized_dataloader(batch_size=3, shuffle=False)))
        assert part.obs_names.tolist() == adata.obs_names[sorted(rows)].tolist()
        found[name] = rows
    assert sorted(row for rows in found.values() for row in rows) == list(range(40))
    if how == {"group_by": "donor"}:
        of_part = [set(adata.obs["donor"].iloc[rows]) for rows in found.values()]
        assert len(set.union(*of_part)) == sum(map(len, of_part)) == 7
    if how == {"stratify": "label"}:
        for label, n in adata.obs["label"].value_counts().items():
            for name, fraction in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
                assert abs((adata.obs["label"].iloc[found[name]] == label).sum() - fraction * n) < 1


def test_a_split_of_a_subset_keeps_to_it(shelf: Path) -> None:
    """Pitfall 12: rows outside obs_subset appear in no part, and parts keep the subset's order."""
    subset = [31, 4, 17, 8, 22, 39, 0, 13, 5, 28]
    dataset = AnnDataset(hand_over(donors(), "path", shelf, "donors"), obs_subset=subset)
    parts = dataset.split({"train": 0.7, "test": 0.3}, stratify="flag")
    found = [flat(rows_of(part.get_optimized_dataloader(shuffle=False))) for part in parts.values()]
    assert sorted(flat(found)) == sorted(subset)
    assert all(rows == [row for row in subset if row in rows] for rows in found)
    again = parts["train"].split({"a": 0.5, "b": 0.5})
    assert sorted([*again["a"].obs_column("row"), *again["b"].obs_column("row")]) == sorted(found[0])


def test_parts_share_file_and_cache_but_no_transform(shelf: Path) -> None:
    """Pitfall 8: the parts of a split read through one descriptor, and rows decoded by one are hits for another."""
    donors(400).write_h5ad(shelf / "gzip.h5ad", compression="gzip")
    dataset = AnnDataset(shelf / "gzip.h5ad", cache="100MB")
    train, test = dataset.split({"train": 0.5, "test": 0.5}).values()
    train.transform = Log1p()
    for part in (train, test, train, test):
        list(part.get_optimized_dataloader())
    stats = dataset.stats()
    assert stats == train.stats() == test.stats()
    assert stats["opens"] == 1
    assert stats["cache_hits"] >= 400
    assert test.transform is dataset.transform is None
    assert float(train[0]["X"].max()) < float(dataset[int(train.obs_column("row").iloc[0])]["X"].max())


def test_columns_that_are_not_delivered_split_too(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(donors(), "path", shelf, "donors"), obs_columns=["row"])
    parts = dataset.split({"train": 0.5, "test": 0.5}, group_by="donor")
    assert not set(parts["train"].obs_column("donor")) & set(parts["test"].obs_column("donor"))
    assert set(parts["train"][0]) == {"X", "obs_row"}


PROGRAM = """
import sys
from annfeed import AnnDataset
for how in ({}, {"group_by": "donor"}, {"stratify": "label"}, {"group_by": "donor", "stratify": "label"}):
    parts = AnnDataset(sys.argv[1]).split({"train": 0.8, "val": 0.1, "test": 0.1}, seed=0, **how)
    print([part.obs_column("row").tolist() for part in parts.values()])
"""


def test_other_processes_split_alike(shelf: Path) -> None:
    """Pitfall 2: a split is one function of the data and the seed (0 included), so no rank trains on another's test."""
    path = str(hand_over(donors(), "path", shelf, "donors"))
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, path],
            env={**__import__("os").environ, "PYTHONHASHSEED": seed, "RANK": rank, "WORLD_SIZE": "2"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed, rank in (("1", "0"), ("2", "1"))
    }
    assert len(found) == 1


# --- refusals --------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ({"a": 0.5, "b": 0.4}, {}, ValueError, "sum to 0.9; expected 1"),
    ({}, {}, ValueError, "sum to 0"),
    ({"a": 1.5, "b": -0.5}, {}, ValueError, "fraction of 'a' is 1.5"),
    ({"a": 1.0, "b": 0.0}, {}, ValueError, "fraction of 'b' is 0.0"),
    ({"a": 0.5, "b": float("nan")}, {}, ValueError, "fraction of 'b' is nan"),
    ({"a": "all"}, {}, TypeError, "fraction of 'a' is 'all'"),
    ([0.5, 0.5], {}, TypeError, r"fractions are \[0.5, 0.5\]"),
    ({"a": 0.99, "b": 0.01}, {}, ValueError, "part 'b' gets no row: there are 40 rows"),
    ({f"part{i}": 0.1 for i in range(10)}, {"group_by": "donor"}, ValueError, "gets no row: there are 7 groups"),
    (THREE, {"seed": -1}, ValueError, "seed is -1"),
    (THREE, {"seed": None}, ValueError, "seed is None"),
    (THREE, {"group_by": "donors"}, KeyError, "Did you mean 'donor'"),
    (THREE, {"group_by": "part"}, ValueError, "group_by='part': 2 of 40 rows have no value"),
]


@pytest.mark.parametrize(("fractions", "how", "error", "message"), REFUSED)
def test_refusals_say_what_was_found(fractions: Any, how: dict, error: type[Exception], message: str) -> None:
    adata = donors()
    adata.obs["part"] = [None, None, *"ab" * 19]
    with pytest.raises(error, match=message):
        AnnDataset(adata).split(fractions, **how)


def test_repeated_rows_are_not_split() -> None:
    with pytest.raises(ValueError, match="obs_subset repeats rows"):
        AnnDataset(toy(), obs_subset=[1, 2, 1]).split({"a": 0.5, "b": 0.5})


def test_a_missing_stratum_is_a_stratum() -> None:
    adata = toy()
    adata.obs["type"] = [None] * 20 + ["B"] * 20
    part = AnnDataset(adata).split({"a": 0.5, "b": 0.5}, stratify="type")["a"]
    assert part.obs_column("type").isna().sum() == 10


@pytest.mark.parametrize("n_labels", [1, 127, 128, 129, 40_000])
def test_codes_are_narrow_and_of_all_labels(n_labels: int) -> None:
    column = pd.Series([*range(n_labels), np.nan])
    codes, labels = label_codes(column)
    assert codes.tolist() == [*range(n_labels), -1]
    assert labels == list(range(n_labels))
    assert codes.dtype == (np.int8 if n_labels <= 128 else np.int16 if n_labels <= 2**15 else np.int32)


def test_parts_have_fingerprints_of_their_own() -> None:
    # Also where the whole's was asked for before the split.
    dataset = AnnDataset(toy(), obs_columns=[])
    whole = dataset.reader.fingerprint()
    found = [part.reader.fingerprint() for part in dataset.split({"train": 0.5, "test": 0.5}).values()]
    assert found[0] != whole != found[1] != found[0]
