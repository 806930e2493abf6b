"""Values of tokens: what is no expression is refused by name, and what float32 cannot hold is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.support.toys import write

from annfeed import AnnDataset, Tokens


def adata_of(x: Any, dtype: Any = "float32") -> anndata.AnnData:
    x = x if sp.issparse(x) else np.array(x, dtype)
    return anndata.AnnData(x, var=pd.DataFrame(index=[f"g{j}" for j in range(x.shape[1])]))


# --- what is no expression -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-5, np.nan, np.inf])
@pytest.mark.parametrize("values", ["normalized", "log1p"])
def test_genes_that_are_left_out_are_not_delivered_as_nan(wrong: float, values: Any, tmp_path: Path) -> None:
    adata = adata_of([[3, 0, 0, 1], [3, wrong, 0, 1], [0, 0, 0, 0]])
    for source in (adata, write(adata, tmp_path / "a.h5ad"), adata_of(sp.csr_matrix(adata.X))):
        dataset = AnnDataset(source, output=Tokens(values=values), var_subset=["g0", "g3"])
        assert dataset[0]["values"].isfinite().all() and len(dataset[2]["genes"]) == 0
        found = "-1.0" if wrong == -5 else "NaN" if np.isnan(wrong) else "inf"
        with pytest.raises(ValueError, match=f"row 1 sums to {found} over all genes; expected a finite sum, above 0"):
            dataset.head()
        counts = AnnDataset(source, output=Tokens(), var_subset=["g0", "g3"]).head(2)
        assert counts["values"].tolist() == [[3, 1], [3, 1]]


def test_a_sum_of_0_beside_expressed_genes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"row 0 sums to 0\.0 over all genes"):
        AnnDataset(adata_of([[3, -3]]), output=Tokens(values="normalized"), var_subset=[0]).head()


def test_a_wrong_value_is_named_by_its_file_row_and_gene(tmp_path: Path) -> None:
    good, bad = np.ones((40, 3)), np.ones((40, 3))
    bad[5, 1] = -2
    paths = [write(adata_of(x), tmp_path / name) for x, name in [(good, "good.h5ad"), (bad, "bad.h5ad")]]
    expected = r"bad\.h5ad: 'X': row 5, gene 'g1' is -2\.0; expected numbers of 0 or more"
    for sources, options in (
        (paths, {}),
        (paths, {"var_subset": ["g2", "g1"], "obs_subset": range(40, 80)}),
        (paths[1], {}),
        (paths[1], {"var_subset": [1]}),
    ):
        dataset = AnnDataset(sources, output=Tokens(), **options)
        with pytest.raises(ValueError, match=f"^[^:]*{expected}"):
            list(dataset.get_optimized_dataloader(80, seed=1))
    bad[5, 1] = 1
    adata = adata_of([[1, 1, -1], [1, 1, -4], [1, 1, 1]])
    path = write(adata, tmp_path / "sums.h5ad")
    for sources, place in (
        (path, r"sums\.h5ad: 'X'"),
        ([paths[0], path], r"sums\.h5ad: 'X'"),
        ([adata, path], "AnnData.*"),
    ):
        dataset = AnnDataset(sources, output=Tokens(values="log1p"), var_subset=["g0", "g1"])
        with pytest.raises(ValueError, match=rf"{place}: row 1 sums to -2\.0 over all genes"):
            dataset.reader.batch(np.arange(len(dataset)))


# --- what float32 cannot hold ----------------------------------------------------------------------------------------


def told(adata: anndata.AnnData, tokens: Tokens) -> list[str]:
    dataset = AnnDataset(adata, output=tokens)
    with pytest.warns(UserWarning, match="becomes infinite|is rounded") as caught:
        batches = [dataset.head() for _ in range(3)]
    assert batches
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("values", ["counts", "normalized", "log1p"])
def test_a_rounded_whole_number_is_told_once(values: Any) -> None:
    (message,) = told(adata_of([[1, 16777217, 2]], "int64"), Tokens(values=values))
    assert "the whole number 16777217 (column 1) is rounded in torch.float32" in message


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int64"])
@pytest.mark.parametrize("options", [{"scale": [1, 1e-39, 1]}, {"values": "normalized"}, {"values": "log1p"}])
def test_infinite_values_are_told_once(dtype: str, options: dict[str, Any]) -> None:
    (message,) = told(adata_of([[1, 3, 2], [0, 0, 0]], dtype), Tokens(target_sum=1e40, **options))
    assert "the value 3 of column 1 becomes infinite with target_sum and scale of Tokens" in message


@pytest.mark.filterwarnings("error::annfeed.errors.AnnfeedWarning")
def test_what_is_exact_is_not_told() -> None:
    for values in ("counts", "normalized", "log1p", "binned", "rank"):
        for x in ([[1.5, 16777216.0, 2.0**100, 0.1]], [[1, 3, 0, 2]]):
            AnnDataset(adata_of(x, "float64"), output=Tokens(values=values)).head()
    for values in ("binned", "rank"):
        AnnDataset(adata_of([[1, 16777217]], "int64"), output=Tokens(values=values)).head()


def test_what_is_0_in_float32_is_not_expressed() -> None:
    x = np.array([[1e-60, 1e-45, 2e-46, 1.0, 0.0]])
    for cells in (x, sp.csr_matrix(x)):
        batch = AnnDataset(adata_of(cells, "float64"), output=Tokens(order="gene")).head()
        assert batch["genes"].tolist() == [[1, 3]] and batch["n_expressed"].tolist() == [2]
        assert batch["values"].tolist() == [x[0, [1, 3]].astype("float32").tolist()]


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_padding_that_float32_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"Tokens: pad_value is .*; expected a number that float32 holds"):
        Tokens(pad_value=value)
    assert Tokens(pad_value=-np.inf).pad_value == -np.inf


# --- shapes, and what is set later -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"cls_id": 9}, {"pad_to": "length"}, {"cls_id": 9, "pad_to": "length"}])
def test_a_batch_of_no_rows(options: dict[str, Any]) -> None:
    dataset = AnnDataset(adata_of(np.ones((2, 3))), output=Tokens(length=5, **options))
    width = 5 if "pad_to" in options else int("cls_id" in options)
    for batch in (dataset.head(0), dataset.reader.batch(np.empty(0, np.int64))):
        assert batch["genes"].shape == batch["values"].shape == batch["mask"].shape == (0, width)
        assert batch["n_expressed"].shape == (0,)


def test_bytes_of_a_row_are_those_of_the_genes_there_are() -> None:
    adata = adata_of(np.ones((2, 3)))
    for tokens, n in [
        (Tokens(), 3),
        (Tokens(cls_id=9), 4),
        (Tokens(length=2), 2),
        (Tokens(vocabulary={"g1": 1}), 1),
        (Tokens(length=8, pad_to="length"), 8),
    ]:
        dataset = AnnDataset(adata, output=tokens)
        batch = dataset.head()
        assert dataset.reader.row_bytes * 2 == sum(batch[key].nbytes for key in ("genes", "values", "mask"))
        assert batch["genes"].shape[1] == n


def test_what_is_set_later_is_checked() -> None:
    dataset = AnnDataset(adata_of(np.ones((2, 3))))
    for wrong in ("tokens", None, "DENSE"):
        with pytest.raises(ValueError, match=f"output is {wrong!r}; expected one of"):
            dataset.output = wrong  # type: ignore[assignment]
    assert dataset.output == "dense" and dataset.head()["X"].shape == (2, 3)
    dataset.output = Tokens()
    with pytest.raises(ValueError, match=r"dtype is torch\.float16; expected torch\.float32"):
        dataset.dtype = torch.float16
    with pytest.raises(TypeError, match="dtype is 'float64'"):
        dataset.dtype = "float64"  # type: ignore[assignment]
    assert dataset.dtype == torch.float32
    dataset.output = "dense"
    dataset.dtype = torch.float16
    assert dataset.head()["X"].dtype == torch.float16
    with pytest.raises(ValueError, match=r"dtype is torch\.float16"):
        dataset.output = Tokens()
    assert dataset.output == "dense"
