"""Genes of tokens are found by name or by a column of var, as those of ``var_subset`` are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from tests.support.toys import write

from annfeed import AnnDataset, Tokens
from annfeed.errors import UnknownNameError


def adata_of(names: list[str], **columns: Any) -> anndata.AnnData:
    """Two cells, in which all genes are expressed; those of greater columns more."""
    x = np.arange(1, len(names) + 1, dtype="float32") + np.zeros((2, 1), "float32")
    return anndata.AnnData(x, var=pd.DataFrame(columns, index=names))


def genes_of(source: Any, tokens: Tokens, **options: Any) -> list[int]:
    batch = AnnDataset(source, output=tokens, **options).head(1)
    return sorted(batch["genes"][batch["mask"]].tolist())


def test_names_are_found_in_a_column_of_joined_files(tmp_path: Path) -> None:
    a = adata_of(["E1", "E2", "E3"], symbol=["TP53", None, "CD4"], only_a=["x", "y", "z"])
    b = adata_of(["E2", "E1", "E3"], symbol=["CD8A", "TP53", "CD4-like"])
    paths = [write(a, tmp_path / "a.h5ad"), write(b, tmp_path / "b.h5ad")]
    found = Tokens(vocabulary={"TP53": 1, "CD8A": 2})
    for sources in (paths, [a, b], [paths[0], b]):
        assert genes_of(sources, found, var_column="symbol") == [1, 2]
        assert genes_of(sources, Tokens(scale={"CD8A": 2.0}), var_column="symbol", var_subset=["CD8A"]) == [0]
        doubtful = Tokens(vocabulary={"TP53": 1, "CD4": 4})
        with pytest.raises(ValueError, match=r"the gene 'E3' is 'CD4' in the column 'symbol' of .* 'CD4-like' in that"):
            AnnDataset(sources, output=doubtful, var_column="symbol")
        # Genes that are left out may differ.
        assert genes_of(sources, doubtful, var_column="symbol", var_subset=["TP53", "CD8A"]) == [1]


def test_a_column_that_does_not_exist_is_named(tmp_path: Path) -> None:
    adata = adata_of(["E1", "E2"], symbol=["TP53", "CD4"])
    path = write(adata, tmp_path / "a.h5ad")
    for source in (path, adata, [path, path], [adata, path]):
        with pytest.raises(UnknownNameError, match=r"'symbols'.*Did you mean 'symbol'"):
            AnnDataset(source, output=Tokens(vocabulary={"TP53": 1}), var_column="symbols")


@pytest.mark.parametrize("missing", [None, np.nan])
def test_missing_values_are_no_names(missing: Any, tmp_path: Path) -> None:
    texts = adata_of(["E1", "E2", "E3"], symbol=pd.Categorical(["TP53", missing, "CD4"]))
    path = write(texts, tmp_path / "a.h5ad")
    for source in (texts, path):
        vocabulary = {"nan": 8, "None": 9, "<NA>": 10, "CD4": 4}
        assert genes_of(source, Tokens(vocabulary=vocabulary), var_column="symbol") == [4]
    with pytest.raises(ValueError, match=r"found genes 'TP53', 'CD4'; expected some of 'nan'"):
        AnnDataset(path, output=Tokens(vocabulary={"nan": 8}), var_column="symbol")


def test_numbers_are_found_as_texts() -> None:
    adata = adata_of(["E1", "E2", "E3"], entrez=[7157.0, np.nan, 920.0])
    assert genes_of(adata, Tokens(vocabulary={"7157": 1, "920": 2}), var_column="entrez") == [1, 2]


def test_names_that_repeat_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="not unique"):
        adata = adata_of(["a", "a", "b"], symbol=["s", "t", "t"])
    path = write(adata, tmp_path / "a.h5ad")
    for source in (adata, path):
        for tokens in (Tokens(vocabulary={"a": 7, "b": 8}), Tokens(scale={"a": 2.0})):
            with pytest.raises(ValueError, match=r"several columns have one name of .*: 'a'; .*var_subset="):
                AnnDataset(source, output=tokens)
        assert genes_of(source, Tokens(vocabulary={"b": 8})) == [8]  # the others are left out
        assert genes_of(source, Tokens(vocabulary={"a": 7, "b": 8}), var_subset=[1, 2]) == [7, 8]
        assert genes_of(source, Tokens(vocabulary={"s": 1}), var_column="symbol") == [1]
        with pytest.raises(ValueError, match=r"several columns have one name of .*: 't'"):
            AnnDataset(source, output=Tokens(vocabulary={"s": 1, "t": 2}), var_column="symbol")
        assert genes_of(source, Tokens()) == [0, 1, 2]


@pytest.mark.parametrize("name", ["scale", "vocabulary"])
def test_a_series_that_repeats_a_gene_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"Tokens: {name} is a Series whose index repeats 'a'; expected each gene"):
        Tokens(**{name: pd.Series([1, 2, 3], index=["a", "a", "b"])})  # type: ignore[arg-type]


def test_the_first_token_is_no_genes() -> None:
    adata = adata_of(["a", "b", "c"])
    special = {"<cls>": 9, "a": 1, "b": 2}
    with pytest.raises(ValueError, match=r"cls_id is 2, which is the token of the gene 'b'; expected one of no gene"):
        AnnDataset(adata, output=Tokens(vocabulary=special, cls_id=2))
    with pytest.raises(ValueError, match=r"the token of the gene in column 2; .*Without vocabulary= genes have 0 to 2"):
        AnnDataset(adata, output=Tokens(cls_id=2))
    assert genes_of(adata, Tokens(vocabulary=special, cls_id=9)) == [1, 2, 9]
    assert genes_of(adata, Tokens(cls_id=3)) == [0, 1, 2, 3]
    assert genes_of(adata, Tokens(vocabulary=special, cls_id=2), var_subset=["a", "c"]) == [1, 2]
