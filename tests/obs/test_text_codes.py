"""Columns of text are read piece by piece and held as codes; labels are those that pandas finds in the whole."""

from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import read_elem, write_elem

from annfeed import AnnDataset, FormatError
from annfeed.obs import text_codes
from annfeed.obs.table import ObsTable

KINDS = ("vlen", "fixed", "fixed without encoding", "nullable")


def write_column(path: Path, texts: list[str | None], kind: str) -> Path:
    """A file whose obs column "text" holds ``texts``, None for missing."""
    n = len(texts)
    obs = pd.DataFrame({"text": np.zeros(n)}, index=[f"cell{i}" for i in range(n)])
    anndata.AnnData(sp.csr_matrix((n, 2), dtype="float32"), obs=obs).write_h5ad(path)
    plain = ["" if text is None else text for text in texts]
    with h5py.File(path, "r+") as file:
        obs_group = file["obs"]
        del obs_group["text"]
        if kind == "nullable":
            with anndata.settings.override(allow_write_nullable_strings=True):
                write_elem(obs_group, "text", pd.array(texts, dtype="string"))
        elif kind == "vlen":
            chunks = (min(7, n),) if n else None
            write_elem(obs_group, "text", np.array(plain, object), dataset_kwargs={"chunks": chunks} if n else {})
        else:
            fixed = np.array([text.encode() for text in [*plain, "x"]], dtype="S")[:n]
            obs_group["text"] = fixed.astype(h5py.string_dtype("utf-8", fixed.dtype.itemsize))
            obs_group["text"].attrs["encoding-type"] = "string-array" if kind == "fixed" else "array"
            obs_group["text"].attrs["encoding-version"] = "0.2.0"
    return path


def whole(path: Path) -> pd.Series[Any]:
    """The column as anndata reads it, bytes as text."""
    with h5py.File(path) as file:
        column = pd.Series(read_elem(file["obs/text"]))
    return column.map(lambda value: value.decode() if isinstance(value, bytes) else value, na_action="ignore")


def texts(n: int, n_different: int, missing: bool, seed: int = 0) -> list[str | None]:
    drawn = np.random.default_rng(seed).integers(0, n_different, n)
    return [None if missing and i % 7 == 3 else f"typ {d} é" for i, d in enumerate(drawn)]


@pytest.mark.parametrize("piece", [1, 10, 64])
@pytest.mark.parametrize("n_different", [3, 127, 128, 129, 400])
@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_those_of_pandas(
    kind: str, n_different: int, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_codes, "_PIECE", piece)
    path = write_column(tmp_path / "one.h5ad", texts(700, n_different, kind == "nullable"), kind)
    column = whole(path)
    codes, labels = pd.factorize(column)
    dataset = AnnDataset(path, obs_columns=["text"])
    found, names = dataset.reader.label_codes("text")
    np.testing.assert_array_equal(found, codes)
    assert names == list(labels)
    assert found.dtype == np.min_scalar_type(-max(1, len(labels)))
    rows = np.arange(699, 0, -3)
    codes, labels = pd.factorize(column.iloc[rows])
    found, names = dataset.subset(rows).reader.label_codes("text")
    np.testing.assert_array_equal(found, codes)
    assert names == list(labels)
    # What batches have: codes of the sorted texts.
    table = ObsTable.from_file(path)
    wanted = pd.Categorical(column)
    assert table.take(rows, "code")["obs_text"].tolist() == wanted.codes[rows].tolist()
    assert list(table.categories["text"]) == list(wanted.categories)
    assert table.take(rows)["obs_text"] == column.iloc[rows].fillna("nan").tolist()


@pytest.mark.parametrize("kinds", [("vlen", "vlen"), ("vlen", "nullable"), ("fixed", "vlen"), ("nullable", "absent")])
def test_several_files_have_one_code_for_a_text(kinds: tuple[str, str], tmp_path: Path) -> None:
    paths = []
    for number, kind in enumerate(kinds):
        path = tmp_path / f"{number}.h5ad"
        paths.append(write_column(path, texts(200, 150, kind == "nullable", number), kind if kind in KINDS else "vlen"))
        if kind == "absent":
            with h5py.File(path, "r+") as file:
                del file["obs/text"]
                file["obs"].attrs["column-order"] = np.array([], dtype=h5py.string_dtype())
    parts = [whole(p) if kind != "absent" else pd.Series([None] * 200) for p, kind in zip(paths, kinds, strict=True)]
    column = pd.concat([part.astype(object) for part in parts], ignore_index=True)
    column = column.where(column.notna(), None)
    with pytest.warns(match="not all sources") if "absent" in kinds else contextlib.nullcontext():
        dataset = AnnDataset(paths, join="outer", obs_columns=["text"])
    codes, labels = pd.factorize(column)
    found, names = dataset.reader.label_codes("text")
    np.testing.assert_array_equal(found, codes)
    assert names == list(labels)
    rows = np.arange(399, 0, -7)
    assert dataset[rows].batch["obs_text"] == ["nan" if text is None else text for text in column[rows]]


@pytest.mark.parametrize("first", ["text", "categorical"])
def test_text_in_one_file_and_categorical_in_another_are_codes(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "categorical.h5ad", write_column(tmp_path / "text.h5ad", texts(200, 150, False), "vlen")]
    labels = pd.Categorical(["typ 3 é", None, "new"] * 50, ["unused", "new", "typ 3 é"])
    obs = pd.DataFrame({"text": labels}, index=[f"c{i}" for i in range(150)])
    anndata.AnnData(sp.csr_matrix((150, 2), dtype="float32"), obs=obs).write_h5ad(paths[0])
    paths = paths[::-1] if first == "text" else paths
    column = pd.concat([anndata.read_h5ad(path).obs["text"].astype(object) for path in paths], ignore_index=True)
    codes, different = pd.factorize(column)
    dataset = AnnDataset(paths, obs_columns=["text"])
    # Nowhere is it put together as text.
    monkeypatch.setattr("annfeed.obs.concat.concat_column", None)
    found, names = dataset.reader.label_codes("text")
    np.testing.assert_array_equal(found, codes)
    assert (names, found.dtype) == (list(different), np.min_scalar_type(-len(different)))
    rows = np.arange(349, 0, -3)
    assert dataset[rows].batch["obs_text"] == column.fillna("nan")[rows].tolist()
    coded = AnnDataset(paths, obs_columns=["text"], categories="code")
    assert list(coded.categories["text"]) == sorted(different)
    wanted = pd.Categorical(column, sorted(different)).codes[rows]
    assert coded[rows].batch["obs_text"].tolist() == wanted.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_without_rows(kind: str, tmp_path: Path) -> None:
    path = write_column(tmp_path / "none.h5ad", [], kind)
    found, names = AnnDataset(path, obs_columns=[]).reader.label_codes("text")
    assert (len(found), names) == (0, [])


def test_a_column_of_another_length_is_told(tmp_path: Path) -> None:
    path = write_column(tmp_path / "wrong.h5ad", ["a", "b", "c"], "vlen")
    with h5py.File(path, "r+") as file:
        del file["obs/text"]
        write_elem(file["obs"], "text", np.array(["a", "b"], object))
    with pytest.raises(FormatError, match=r"wrong\.h5ad.*text.*2 values.*3 rows"):
        AnnDataset(path, obs_columns=[]).reader.label_codes("text")


@pytest.mark.parametrize("ask", ["balance", "split", "batch"])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_text_is_never_held(
    kind: str, several: bool, ask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text of a row takes 100 bytes and more; codes and one piece of a tenth of the rows take a few bytes a row."""
    n = 30_000
    monkeypatch.setattr(text_codes, "_PIECE", 1_000)
    path = write_column(tmp_path / "long.h5ad", [f"{'a long text ' * 6}{i % 20}" for i in range(n)], kind)
    dataset = AnnDataset([path, path] if several else path, obs_columns=["text"], cache=0)
    n_rows = len(dataset)
    next(iter(dataset.get_optimized_dataloader(1_000)))  # what is imported and kept once
    dataset = AnnDataset([path, path] if several else path, obs_columns=["text"], cache=0)
    tracemalloc.start()
    try:
        if ask == "balance":
            dataset.get_optimized_dataloader(balance="text")
        elif ask == "split":
            dataset.reader.label_codes("text", needed_by="stratify")
        else:
            dataset.reader.obs.take(np.array([5]))
        peak = tracemalloc.get_traced_memory()[1] / n_rows
    finally:
        tracemalloc.stop()
    assert peak < 50, peak  # a weighting of so few rows takes 30


def test_text_of_a_file_beside_an_anndata_is_codes(tmp_path: Path) -> None:
    """The file's texts are not held, and edits of the AnnData reach the next batch."""
    n = 20_000
    path = write_column(tmp_path / "file.h5ad", [f"{'a long text ' * 6}{i % 20}" for i in range(n)], "vlen")
    for kind in ("object", "category"):
        obs = pd.DataFrame({"text": pd.Series(["new", None, "a"], ["x", "y", "z"], dtype=kind)})
        adata = anndata.AnnData(sp.csr_matrix((3, 2), dtype="float32"), obs=obs)
        column = pd.concat([whole(path), adata.obs["text"].astype(object)], ignore_index=True)
        dataset = AnnDataset([path, adata], obs_columns=["text"], cache=0)
        dataset[0]  # what is imported and kept once
        dataset = AnnDataset([path, adata], obs_columns=["text"], cache=0)
        tracemalloc.start()
        try:
            found, names = dataset.reader.label_codes("text")
            assert dataset[[0, n, n + 1]].batch["obs_text"] == [column[0], "new", "nan"]
            held = tracemalloc.get_traced_memory()[0] / n
        finally:
            tracemalloc.stop()
        assert held < 20, held
        codes, different = pd.factorize(column)
        np.testing.assert_array_equal(found, codes)
        assert names == list(different)
        assert found.dtype.name == "int8"
        adata.obs["text"] = pd.Series(["a", "a", "late"], adata.obs_names, dtype=kind)
        assert dataset[[n, n + 2]].batch["obs_text"] == ["a", "late"]
        assert dataset.reader.label_codes("text")[1][-2:] == ["a", "late"]
        adata.obs["text"] = [1, 2, 3]
        assert dataset[[1, n]].batch["obs_text"] == [column[1], "1"]
