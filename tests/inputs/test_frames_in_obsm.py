"""DataFrames in obsm, as CITE-seq proteins are: the same from a file as from memory, columns by name."""

import pickle
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from tests.support.toys import FORMS, hand_over, toy

from annfeed import AnnDataset, NormalizeTotal, StaleFileError, UnknownNameError, UnsupportedError
from annfeed.sources import frame

PROTEINS = ["CD3", "CD19", "CD4", "IgG"]


def with_proteins(n_obs: int = 40, columns: list[str] = PROTEINS, first: int = 0) -> anndata.AnnData:
    adata = toy(n_obs)
    values = np.arange(first, first + n_obs * len(columns)).reshape(n_obs, -1)
    proteins = pd.DataFrame(values, index=adata.obs_names, columns=columns)
    proteins[columns[0]] = proteins[columns[0]].astype("float32")
    proteins[columns[1]] = proteins[columns[1]].astype("Int64")
    adata.obsm["protein"] = proteins
    return adata


def wanted(adata: anndata.AnnData, columns: list[str]) -> np.ndarray:
    return adata.obsm["protein"][columns].to_numpy(np.float64, na_value=np.nan)


def read(dataset: AnnDataset, key: str = "X") -> np.ndarray:
    loader = dataset.get_optimized_dataloader(batch_size=16, shuffle=False)
    return np.concatenate([batch[key].numpy() for batch in loader])


@pytest.mark.parametrize("form", FORMS)
def test_a_frame_is_a_matrix_with_names(tmp_path: Path, form: str) -> None:
    adata = with_proteins()
    given = hand_over(adata, form, tmp_path)
    dataset = AnnDataset(given, elem="obsm/protein", cache=0)
    assert dataset.shape == (40, 4)
    assert list(dataset.var_names) == PROTEINS
    np.testing.assert_array_equal(read(dataset), wanted(adata, PROTEINS))
    for subset in (["CD4", "CD3"], [2, 0], pd.Index(["CD4", "CD3"])):
        some = AnnDataset(given, elem="obsm/protein", var_subset=subset, obs_subset=[5, 2])
        assert list(some.var_names) == ["CD4", "CD3"]
        np.testing.assert_array_equal(read(some), wanted(adata, ["CD4", "CD3"])[[5, 2]])
    with pytest.raises(UnknownNameError, match=r"no gene 'CD5'\. Did you mean"):
        AnnDataset(given, elem="obsm/protein", var_subset=["CD5"])


@pytest.mark.parametrize("form", FORMS)
def test_beside_genes(tmp_path: Path, form: str) -> None:
    adata = with_proteins()
    given = hand_over(adata, form, tmp_path)
    elem = {"X": "X", "protein": "obsm/protein"}
    genes = AnnDataset(given, elem=elem, var_subset=["gene2"])
    assert [genes[0][key].shape[0] for key in elem] == [1, 4]
    both = AnnDataset(given, elem=elem, var_subset={"X": ["gene2", "gene0"], "protein": ["CD19"]})
    assert read(both).shape == (40, 2)
    np.testing.assert_array_equal(read(both, "protein"), wanted(adata, ["CD19"]))
    assert AnnDataset(given, elem=elem, var_subset={"protein": ["CD19"]})[0]["X"].shape == (7,)
    with pytest.raises(UnknownNameError, match=r"the key 'proteins'.*Did you mean 'protein'"):
        AnnDataset(given, elem=elem, var_subset={"proteins": ["CD19"]})


@pytest.mark.parametrize("join", ["inner", "outer"])
@pytest.mark.parametrize("form", FORMS)
def test_of_several_files_by_name(tmp_path: Path, form: str, join: Any) -> None:
    parts = [with_proteins(), with_proteins(9, ["IgG", "CD4", "CD8"], 500)]
    given = [hand_over(part, form, tmp_path, f"part{i}") for i, part in enumerate(parts)]
    dataset = AnnDataset(given, elem="obsm/protein", join=join)
    frames = [part.obsm["protein"].astype("float64").reset_index(drop=True) for part in parts]
    whole = pd.concat(frames, join=join, ignore_index=True)
    assert set(dataset.var_names) == set(whole.columns)
    np.testing.assert_array_equal(read(dataset), whole[list(dataset.var_names)].fillna(0).to_numpy())
    some = AnnDataset(given, elem="obsm/protein", join=join, var_subset=["CD4"])
    np.testing.assert_array_equal(read(some)[:, 0], whole["CD4"].to_numpy())


def test_a_frame_here_and_an_array_there(tmp_path: Path) -> None:
    other = toy()
    other.obsm["protein"] = np.ones((40, 4))
    with pytest.raises(ValueError, match="'obsm/protein' is a DataFrame in AnnData '0' and an array in AnnData '1'"):
        AnnDataset([with_proteins(), other], elem="obsm/protein")


@pytest.mark.parametrize("form", [*FORMS, "view"])
def test_columns_that_are_no_numbers(tmp_path: Path, form: str) -> None:
    adata = with_proteins()
    adata.obsm["protein"]["IgG"] = pd.Categorical(["low", "high"] * 20)
    adata.obsm["protein"].loc["cell1", "CD19"] = pd.NA
    given = adata[:, :] if form == "view" else hand_over(adata, form, tmp_path)
    with pytest.raises(UnsupportedError, match="column 'IgG' is category; expected numbers; leave it out"):
        AnnDataset(given, elem="obsm/protein")[0]
    some: dict[str, Any] = {"elem": "obsm/protein", "var_subset": ["CD19", "CD3"]}
    for dataset in (AnnDataset(given, **some), AnnDataset([given, given], **some).subset(slice(40))):
        np.testing.assert_array_equal(read(dataset), wanted(adata, ["CD19", "CD3"]))
        np.testing.assert_array_equal(dataset[2]["X"], wanted(adata, ["CD19", "CD3"])[2])
        assert pickle.loads(pickle.dumps(dataset))[3]["X"].tolist() == wanted(adata, ["CD19", "CD3"])[3].tolist()
    with pytest.raises(UnsupportedError, match=r"'IgG' is category.* sums over all columns.*over='delivered'"):
        AnnDataset(given, **some, transform=NormalizeTotal(10))[3]
    over = AnnDataset(given, **some, transform=NormalizeTotal(10, over="delivered"))[3]["X"]
    np.testing.assert_allclose(over, 10 * (x := wanted(adata, ["CD19", "CD3"])[3]) / x.sum(), rtol=1e-6)


@pytest.mark.parametrize("columns", [["CD4", "CD3"], None])
@pytest.mark.parametrize("of", [slice(None), slice(None, None, -2), [5, 3, 30]])
def test_an_item_of_memory_turns_only_its_row_into_numbers(
    columns: list[str] | None, of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    adata = with_proteins()[of]
    values = wanted(adata, columns or PROTEINS)
    dataset = AnnDataset(adata, elem={"X": "X", "protein": "obsm/protein"}, var_subset={"protein": columns})
    lengths, turned = [], frame.frame_values

    def counted(rows: pd.DataFrame, *rest: Any, **options: Any) -> Any:
        lengths.append(len(rows))
        return turned(rows, *rest, **options)

    monkeypatch.setattr(frame, "frame_values", counted)
    np.testing.assert_array_equal(dataset[2]["protein"], values[2])
    np.testing.assert_array_equal(dataset[[1, 0]][0]["protein"], values[1])
    assert 0 < max(lengths, default=0) <= 2


def test_columns_assigned_in_mid_epoch_are_those_of_the_next() -> None:
    adata = with_proteins()
    before = wanted(adata, ["CD4"])
    loader = AnnDataset(adata, elem="obsm/protein", var_subset=["CD4"]).get_optimized_dataloader(10, shuffle=False)
    found = []
    for batch in loader:
        found.append(batch["X"].numpy())
        adata.obsm["protein"]["CD4"] = -np.arange(40)
    np.testing.assert_array_equal(np.concatenate(found), before)
    np.testing.assert_array_equal(np.concatenate([batch["X"] for batch in loader])[:, 0], -np.arange(40))


def test_in_workers_and_over_a_change(tmp_path: Path) -> None:
    adata = with_proteins()
    path = hand_over(adata, "path", tmp_path)
    dataset = AnnDataset(path, elem="obsm/protein")
    loader = dataset.get_optimized_dataloader(batch_size=16, shuffle=False, num_workers=1)
    np.testing.assert_array_equal(np.concatenate([b["X"].numpy() for b in loader]), wanted(adata, PROTEINS))
    assert pickle.loads(pickle.dumps(dataset))[3]["X"].tolist() == wanted(adata, PROTEINS)[3].tolist()
    with_proteins(41).write_h5ad(path)
    with pytest.raises(StaleFileError, match=r"toy\.h5ad: the file changed"):
        dataset[0]
