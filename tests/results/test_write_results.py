"""Results of many files: each at its row, and nothing halfway; what `check_writable` says before."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from tests.results.results import VALUES, N, predictions
from tests.support.toys import hand_over, rows_of, toy

from annfeed import AnnDataset, StaleDataError, StaleFileError, check_writable, write_obs, write_obsm


def read(paths: list[Path]) -> anndata.AnnData:
    return anndata.concat([anndata.read_h5ad(path) for path in paths], join="outer")


# --- many files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_row_goes_into_its_file(files: list[Path], num_workers: int) -> None:
    dataset = AnnDataset(files, obs_subset=np.random.default_rng(1).permutation(N), obs_columns=["row", "text"])
    write_obsm(dataset, "X_model", predictions(dataset, num_workers=num_workers))
    write_obs(
        dataset, "kind", ((b["index"], b["obs_row"] % 3) for b in dataset.predict_loader(7)), categories=list("xyz")
    )
    found = read(files)
    np.testing.assert_array_equal(found.obsm["X_model"][:, 0], np.arange(N) * 2)
    assert found.obs["kind"].tolist() == [("x", "y", "z")[i % 3] for i in range(N)]
    # Each file has all categories, so that a code means the same in all of them.
    for path in files:
        assert list(anndata.read_h5ad(path).obs["kind"].cat.categories) == ["x", "y", "z"]
    # The dataset reads on, and the files are one dataset as before.
    rows_of(dataset.predict_loader(7))
    assert AnnDataset(files, elem="obsm/X_model")[33]["X"][0] == 66


def test_results_without_an_index_are_those_of_the_dataset_in_its_order(files: list[Path], path: Path) -> None:
    order = np.random.default_rng(2).permutation(N)
    for sources in (files, path):
        dataset = AnnDataset(sources, obs_subset=order, obs_columns=[])
        write_obsm(dataset, "X_model", VALUES[order])
        write_obs(dataset, "number", order)
    for found in (read(files), anndata.read_h5ad(path)):
        np.testing.assert_array_equal(found.obsm["X_model"], VALUES)
        assert found.obs["number"].tolist() == list(range(N))


def test_rows_of_only_some_files(files: list[Path]) -> None:
    dataset = AnnDataset(files, obs_subset=range(12, 32))
    with pytest.raises(ValueError, match="3 sources: 20 of 40 rows have no result, the first is row 0"):
        write_obsm(dataset, "X_model", predictions(dataset))
    write_obsm(dataset, "X_model", predictions(dataset), fill=float("nan"))
    found = read(files).obsm["X_model"][:, 0]
    np.testing.assert_array_equal(found, [i * 2 if 12 <= i < 32 else np.nan for i in range(N)])


def test_a_dataset_of_files_and_objects(files: list[Path]) -> None:
    adata = anndata.read_h5ad(files[1])
    dataset = AnnDataset([files[0], adata, files[2]], label="file", index_unique="-")
    write_obsm(dataset, "X_model", predictions(dataset))
    # A Series of the names that the dataset gives to its rows.
    write_obs(dataset, "number", pd.Series(np.arange(N), index=dataset.obs_names)[::-1])
    parts = [anndata.read_h5ad(files[0]), adata, anndata.read_h5ad(files[2])]
    np.testing.assert_array_equal(np.vstack([part.obsm["X_model"] for part in parts])[:, 0], np.arange(N) * 2)
    assert [n for part in parts for n in part.obs["number"]] == list(range(N))
    assert "X_model" not in anndata.read_h5ad(files[1]).obsm


@pytest.mark.parametrize("form", ["memory", "backed"])
def test_a_dataset_of_an_anndata_writes_to_the_object(tmp_path: Path, form: str) -> None:
    adata = hand_over(toy(), form, tmp_path)
    dataset = AnnDataset(adata)
    write_obsm(dataset, "X_model", predictions(dataset))
    np.testing.assert_array_equal(adata.obsm["X_model"][:, 0], np.arange(N) * 2)
    if form == "backed":
        adata.file.close()
        assert "X_model" not in anndata.read_h5ad(tmp_path / "toy.h5ad").obsm


def test_an_anndata_that_was_filtered_after_the_dataset_was_made() -> None:
    adata = toy()
    dataset = AnnDataset(adata)
    adata._inplace_subset_obs(np.arange(30))  # as sc.pp.filter_cells does
    for write in (lambda: write_obsm(dataset, "X_model", VALUES), lambda: check_writable(dataset, obs="new")):
        with pytest.raises(StaleDataError, match=r"Make the dataset again"):
            write()


def reorder(adata: anndata.AnnData) -> None:
    if adata.isbacked:  # whose rows stay in the file, so that only names can be exchanged
        adata.obs = adata.obs[::-1]
    else:
        adata._inplace_subset_obs(np.arange(adata.n_obs)[::-1].copy())  # what sc.pp.filter_cells calls


@pytest.mark.parametrize("form", ["alone", "view", "in a list", "backed"])
def test_an_anndata_that_was_reordered_gets_no_results(tmp_path: Path, form: str) -> None:
    adata = toy()
    target: Any = adata
    if form == "view":
        target = adata[5:30]
    elif form == "in a list":
        target = [toy(), adata]
    elif form == "backed":
        target = adata = anndata.read_h5ad(hand_over(toy(), "path", tmp_path), backed="r")
    dataset = AnnDataset(target)
    found = list(predictions(dataset))
    reorder(adata)
    for write in (
        lambda: write_obsm(dataset, "X_model", found),
        lambda: write_obs(dataset, "new", np.arange(len(dataset))),
        lambda: check_writable(dataset, obsm="X_model"),
    ):
        with pytest.raises(StaleDataError, match=r"Make the (dataset|view) again"):
            write()
    assert "X_model" not in adata.obsm
    assert "new" not in adata.obs


@pytest.mark.parametrize("target", ["the dataset", "the AnnData", "a list"])
def test_an_anndata_that_is_reordered_while_results_come(target: str) -> None:
    adata = toy()
    dataset = AnnDataset([adata, toy(3)] if target == "a list" else adata)

    def results() -> Iterator[Any]:
        yield from predictions(dataset)
        reorder(adata)

    with pytest.raises(StaleDataError):
        write_obsm(adata if target == "the AnnData" else dataset, "X_model", results())
    assert "X_model" not in adata.obsm


def test_a_file_that_is_replaced_while_results_come(path: Path, tmp_path: Path) -> None:
    for target in (path, AnnDataset(path), AnnDataset([path])):

        def results(target: Any = target) -> Iterator[Any]:
            yield from predictions(AnnDataset(path))
            reordered = toy()
            reorder(reordered)
            reordered.write_h5ad(tmp_path / "other.h5ad")
            os.replace(tmp_path / "other.h5ad", path)

        with pytest.raises(StaleFileError, match=r"toy\.h5ad"):
            write_obsm(target, "X_model", results())
        assert "X_model" not in anndata.read_h5ad(path).obsm


@pytest.mark.parametrize("elem", ["obsm/protein", {"X": "X", "protein": "obsm/protein"}])
@pytest.mark.parametrize("listed", [False, True])
def test_a_file_of_a_frame_that_was_replaced(path: Path, elem: Any, listed: bool) -> None:
    def with_proteins() -> anndata.AnnData:
        adata = toy()
        adata.obsm["protein"] = pd.DataFrame({"CD3": np.arange(N, dtype=float)}, index=adata.obs_names)
        return adata

    with_proteins().write_h5ad(path)
    dataset = AnnDataset([path] if listed else path, elem=elem)
    other = with_proteins()
    reorder(other)
    other.write_h5ad(path)
    for write in (lambda: write_obsm(dataset, "X_model", VALUES), lambda: check_writable(dataset, obs="new")):
        with pytest.raises(StaleFileError, match=r"toy\.h5ad.*Make the dataset again"):
            write()
    assert "X_model" not in anndata.read_h5ad(path).obsm


def test_a_modality_of_a_nested_file(tmp_path: Path) -> None:
    path = tmp_path / "nested.h5mu"
    with h5py.File(path, "w") as file:
        for name in ("rna", "prot"):
            anndata.io.write_elem(file.require_group("mod"), name, toy())
    dataset = AnnDataset(path, elem="mod/rna/X")
    write_obsm(dataset, "X_model", predictions(dataset))
    write_obs(dataset, "number", np.arange(N))
    with h5py.File(path) as file:
        rna, prot = (anndata.io.read_elem(file[f"mod/{name}"]) for name in ("rna", "prot"))
    np.testing.assert_array_equal(rna.obsm["X_model"][:, 0], np.arange(N) * 2)
    assert rna.obs["number"].tolist() == list(range(N))
    assert "X_model" not in prot.obsm
    assert "number" not in prot.obs


def test_a_failure_in_the_second_file_says_which_are_written(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import anndata.io

    write, before = anndata.io.write_elem, files[1].read_bytes()

    def fail(group: Any, name: str, value: Any) -> None:
        if group.file.filename == str(files[1]):
            raise RuntimeError("no more")
        write(group, name, value)

    dataset = AnnDataset(files)
    monkeypatch.setattr(anndata.io, "write_elem", fail)
    with pytest.raises(OSError, match=r"b\.h5ad.*no more") as told:
        write_obsm(dataset, "X_model", VALUES)
    assert told.value.__notes__ == [
        f"Written: {files[0]}. Not written: {files[1]}, {files[2]}. "
        "Write again with overwrite=True when the cause is gone"
    ]
    monkeypatch.undo()
    assert ["X_model" in anndata.read_h5ad(path).obsm for path in files] == [True, False, False]
    assert len(files[1].read_bytes()) >= len(before)
    write_obsm(dataset, "X_model", VALUES, overwrite=True)
    np.testing.assert_array_equal(read(files).obsm["X_model"], VALUES)


def test_what_one_file_refuses_is_told_before_any_is_written(files: list[Path]) -> None:
    write_obsm(files[2], "X_model", VALUES[:8])
    before = [path.read_bytes() for path in files]
    dataset, taken = AnnDataset(files), []
    with pytest.raises(ValueError, match=r"c\.h5ad: 'obsm/X_model' is there already"):
        write_obsm(dataset, "X_model", (taken.append(1) for _ in range(3)))
    assert taken == []  # nothing was computed in vain
    assert [path.read_bytes() for path in files] == before


def test_a_file_that_is_there_twice(path: Path, tmp_path: Path) -> None:
    (tmp_path / "same.h5ad").symlink_to(path)
    with pytest.raises(ValueError, match="twice, and a row of it two results"):
        write_obsm(AnnDataset([path, tmp_path / "same.h5ad"]), "X_model", np.zeros(2 * N))


def test_files_that_were_exchanged(files: list[Path]) -> None:
    dataset = AnnDataset(files)
    write_obsm(dataset, "X_model", VALUES)  # our own writes are no exchange
    write_obs(dataset, "number", np.arange(N))
    shutil.copy(files[1], files[2])
    for write in (lambda: write_obsm(dataset, "X_more", VALUES), lambda: check_writable(dataset, obsm="X_more")):
        with pytest.raises(StaleFileError, match=r"c\.h5ad.*Make the dataset again"):
            write()
    assert "X_more" not in anndata.read_h5ad(files[0]).obsm


def test_a_pattern_is_told_to_be_a_dataset(files: list[Path]) -> None:
    with pytest.raises(FileNotFoundError, match="pass the AnnDataset that was made of them"):
        write_obsm(files[0].parent / "*.h5ad", "X_model", VALUES)


# --- check_writable --------------------------------------------------------------------------------------------------


def test_check_writable_says_what_writing_would(path: Path, files: list[Path]) -> None:
    before = path.read_bytes(), path.stat().st_mtime_ns
    for target in (path, toy(), AnnDataset(path), AnnDataset(files)):
        check_writable(target, obsm="X_model", obs="new")
        check_writable(target, obsm="X_pca", obs="label", overwrite=True)
        with pytest.raises(ValueError, match=r"obsm.*X_pca.* is there already"):
            check_writable(target, obsm="X_pca")
        with pytest.raises(ValueError, match=r"obs.*label.* is there already"):
            check_writable(target, obs="label")
        with pytest.raises(ValueError, match="key is 'a/b'"):
            check_writable(target, obsm="a/b")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    with pytest.raises(FileNotFoundError):
        check_writable(path.parent / "none.h5ad", obsm="X_model")
    with pytest.raises(TypeError, match="path_or_adata is a int"):
        check_writable(3, obsm="X_model")


def test_check_writable_of_a_file_that_may_not_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As the system would say; the tests may run as root, who may write everything.
    monkeypatch.setattr(os, "access", lambda place, mode: mode != os.W_OK)
    for check in (lambda: check_writable(path, obsm="X_model"), lambda: write_obsm(path, "X_model", VALUES)):
        with pytest.raises(PermissionError, match="may not be written"):
            check()
    monkeypatch.undo()
    check_writable(path, obsm="X_model")


def test_a_view_of_a_backed_anndata(path: Path) -> None:
    adata = anndata.read_h5ad(path, backed="r")
    for write in (
        lambda: write_obsm(adata[[9, 7]], "X_model", VALUES[:2]),
        lambda: write_obs(adata[[9, 7]], "new", ["a", "b"]),
        lambda: check_writable(adata[[9, 7]], obsm="X_model"),
    ):
        with pytest.raises(ValueError, match=r"is a view of a backed one.*to_memory\(\)"):
            write()
    adata.file.close()


def test_index_of_a_view_of_a_backed_anndata(path: Path) -> None:
    """The row in its file, where a result goes; in a list the row among all rows, and the list cannot be written to."""
    adata = anndata.read_h5ad(path, backed="r")
    view = adata[[9, 7, 20]]
    alone = AnnDataset(view, obs_columns=["row"])
    (batch,) = alone.predict_loader(8)
    assert batch["index"].tolist() == batch["obs_row"].tolist() == [9, 7, 20]
    listed = AnnDataset([toy(5), view], obs_columns=["row"])
    (batch,) = listed.predict_loader(8)
    assert batch["index"].tolist() == list(range(8))
    assert batch["obs_row"].tolist() == [0, 1, 2, 3, 4, 9, 7, 20]
    assert list(listed.source_rows[1]) == [5, 6, 7]
    for dataset in (alone, listed):
        for write in (
            lambda to=dataset: write_obsm(to, "X_model", predictions(to)),
            lambda to=dataset: write_obs(to, "new", list("abcdefgh")[: len(to)]),
            lambda to=dataset: check_writable(to, obsm="X_model"),
        ):
            with pytest.raises(ValueError, match=r"is a view of a backed one.*to_memory\(\)"):
                write()
    results = list(predictions(alone))
    adata.file.close()
    write_obsm(path, "X_model", results, fill=-1)
    found = anndata.read_h5ad(path).obsm["X_model"][:, 0]
    assert found.tolist() == [2 * row if row in (9, 7, 20) else -1 for row in range(N)]
