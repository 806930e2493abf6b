"""Sets are made by labels: after these were edited, an epoch is an error, not old groups with new labels."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from tests.support.toys import hand_over

from annfeed import AnnDataset, CellSets, Controls, StaleDataError, write_obs

SETS = CellSets(
    by="drug", size=2, controls=Controls(where={"kind": "c"}, match=["plate", "line"], fallback=[["plate"], ["line"]])
)
ORDERS: dict[str, dict[str, Any]] = {
    "sets": {"sets": SETS},
    "balance": {"sets": CellSets(by=["drug", "kind"], size=2), "balance": "drug"},
}


def screen() -> anndata.AnnData:
    obs = pd.DataFrame(
        {
            "drug": pd.Categorical(list("aaabbbccdddd")),
            "kind": list("xxxxxxxxcccc"),
            "plate": pd.Categorical(list("pqpqpqpqpppp")),
            "line": list("kkkkkkkkkkkk"),
            "other": np.arange(12),
        },
        index=[f"c{row}" for row in range(12)],
    )
    return anndata.AnnData(np.eye(12, dtype="float32"), obs=obs)


def loader_of(dataset: AnnDataset, **order: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the fallback
        return dataset.get_optimized_dataloader(2, seed=0, **order)


def swap(obs: pd.DataFrame, column: str) -> None:
    first, last = obs[column].iloc[0], obs[column].iloc[-1]
    obs.loc[obs.index[0], column], obs.loc[obs.index[-1], column] = last, first


def rename(obs: pd.DataFrame, column: str) -> None:
    obs[column] = obs[column].astype(str) + "!"


def reverse(obs: pd.DataFrame, column: str) -> None:
    obs[column] = obs[column].to_numpy()[::-1].copy()


@pytest.mark.parametrize("form", ["memory", "backed"])
@pytest.mark.parametrize("edit", [rename, reverse, swap])
@pytest.mark.parametrize("column", ["drug", "kind", "plate"])
def test_sets_of_edited_columns_are_stale(column: str, edit: Any, form: str, tmp_path: Path) -> None:
    adata = hand_over(screen(), form, tmp_path)
    loader = loader_of(AnnDataset(adata), sets=SETS)
    n_batches = len(list(loader))
    adata.obs["other"] = 0
    adata.obs[column] = adata.obs[column].copy()
    assert len(list(loader)) == n_batches  # other columns, and the same values
    if edit is swap and column == "plate":
        adata.obs.loc[adata.obs.index[0], "plate"] = "q"
    else:
        edit(adata.obs, column)
    with pytest.raises(StaleDataError, match=rf"obs\['{column}'\] has other values .* Make the loader again"):
        next(iter(loader))
    del adata.obs[column]
    with pytest.raises(StaleDataError, match=rf"obs\['{column}'\]"):
        next(iter(loader))


def test_other_columns_may_change() -> None:
    adata = screen()
    loader = loader_of(AnnDataset(adata), sets=CellSets(by="drug", size=2))
    adata.obs["plate"] = "z"
    assert len(list(loader)) == len(loader)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("part", [False, True])
def test_sources_and_parts_are_stale_where_their_rows_were_edited(order: str, part: bool) -> None:
    adata = screen()
    dataset = AnnDataset([adata, screen()], keys=["1", "2"], index_unique="-") if not part else AnnDataset(adata)
    dataset = dataset.subset(np.arange(1, 12)) if part else dataset
    loader = loader_of(dataset, **ORDERS[order])
    assert len(list(loader)) == len(loader)
    swap(adata.obs, "drug")
    if part:
        adata.obs.loc["c0", "drug"] = "b"  # no row of the part
        adata.obs.loc["c11", "drug"] = "d"
        assert len(list(loader)) == len(loader)
        adata.obs.loc["c1", "drug"] = "b"
    with pytest.raises(StaleDataError, match=r"obs\['drug'\]"):
        list(loader)
    assert len(list(loader_of(dataset, **ORDERS[order])))  # made again


@pytest.mark.parametrize("order", ORDERS)
def test_a_column_of_a_file_that_annfeed_replaced(order: str, tmp_path: Path) -> None:
    path = hand_over(screen(), "path", tmp_path)
    dataset = AnnDataset(path)
    loader = loader_of(dataset, **ORDERS[order])
    write_obs(dataset, "new", np.arange(12.0))
    assert len(list(loader)) == len(loader)
    write_obs(dataset, "drug", list("bbbaaaccdddd"), overwrite=True)
    with pytest.raises(StaleDataError, match=r"obs\['drug'\]"):
        list(loader)


@pytest.mark.parametrize("order", ORDERS)
def test_in_another_process_columns_are_those_of_then(order: str) -> None:
    # Only the selected columns go there.
    loader = loader_of(AnnDataset(screen(), obs_columns=["other"]), **ORDERS[order])
    there = pickle.loads(pickle.dumps(loader))
    assert [batch["obs_other"].tolist() for batch in there] == [batch["obs_other"].tolist() for batch in loader]
