"""Inference: batches that know their rows, each row once in file order, and results back beside the rows."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
import torch
from tests.support.toys import FORMS, dense, flat, hand_over, rows_of, toy

from annfeed import AnnDataset, FormatError, StaleFileError, Transform, UnsupportedError, write_obsm
from annfeed.results.h5ad import UNFINISHED

UNSORTED = [17, 3, 39, 0, 21, 38, 1]


class New(Transform):
    """Makes a new dict of each item, and knows of no index."""

    def __call__(self, data_dict):
        return {"row": data_dict["obs_row"]}


class Spoil(Transform):
    """Works in place on whatever there is."""

    batched = True

    def __call__(self, data_dict):
        return {**data_dict, "index": torch.zeros(1)}


def first_rows(items: Any) -> dict:
    return {"n": len(items), "index": [item["index"].item() for item in items]}


# --- index -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("form", FORMS)
def test_index_is_the_row_of_the_file(shelf: Path, form: str, num_workers: int) -> None:
    for subset in (None, UNSORTED):
        dataset = AnnDataset(hand_over(toy(), form, shelf), obs_subset=subset, window=8)
        options = {"batch_size": 4, "seed": 1, "num_workers": num_workers}
        batches = list(dataset.get_optimized_dataloader(**options, return_index=True))
        assert all(batch["index"].dtype == torch.int64 for batch in batches)
        assert [batch["index"].tolist() for batch in batches] == rows_of(batches)
        without = list(dataset.get_optimized_dataloader(**options))
        assert [list(batch) for batch in batches] == [[*batch, "index"] for batch in without]
        assert rows_of(without) == rows_of(batches)


def test_index_in_items_and_plain_loaders(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), obs_subset=UNSORTED, return_index=True)
    assert [int(dataset[i]["index"]) for i in range(7)] == UNSORTED == [int(dataset[i]["obs_row"]) for i in range(7)]
    plain = torch.utils.data.DataLoader(dataset, batch_size=3, collate_fn=dataset.get_collate_fn())
    assert flat([batch["index"].tolist() for batch in plain]) == UNSORTED
    # The loader does as the dataset does, unless told otherwise.
    assert "index" in next(iter(dataset.get_optimized_dataloader()))
    assert "index" not in next(iter(dataset.get_optimized_dataloader(return_index=False)))
    assert "index" not in AnnDataset(hand_over(toy(), "path", shelf))[0]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("transform", [New(), Spoil()])
def test_no_transform_loses_or_changes_the_index(shelf: Path, transform: Transform, num_workers: int) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), obs_subset=UNSORTED, transform=transform)
    for loader in (
        dataset.get_optimized_dataloader(batch_size=3, shuffle=False, return_index=True, num_workers=num_workers),
        dataset.predict_loader(batch_size=3, num_workers=num_workers),
    ):
        batches = list(loader)
        assert flat([batch["index"].tolist() for batch in batches]) == UNSORTED


def test_index_reaches_a_users_collate_function(shelf: Path) -> None:
    dataset = AnnDataset(hand_over(toy(), "path", shelf), obs_subset=UNSORTED)
    assert list(dataset.predict_loader(batch_size=5, collate_fn=first_rows)) == [
        {"n": 5, "index": UNSORTED[:5]},
        {"n": 2, "index": UNSORTED[5:]},
    ]


def test_the_index_of_a_batch_is_its_own(shelf: Path) -> None:
    # pitfall 20: what a user does to a batch stays in it.
    dataset = AnnDataset(hand_over(toy(), "path", shelf), obs_subset=UNSORTED)
    loader = dataset.predict_loader(batch_size=2)
    for batch in loader:
        batch["index"].zero_()
    assert flat([batch["index"].tolist() for batch in loader]) == UNSORTED


def test_a_matrix_called_index(shelf: Path) -> None:
    with pytest.raises(ValueError, match="the key 'index'"):
        AnnDataset(hand_over(toy(), "path", shelf), elem={"index": "X"})


# --- predict_loader --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_rows", [1, 7, 8, 39, 40])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_each_row_once_in_file_order(shelf: Path, n_rows: int, batch_size: int) -> None:
    # pitfall 9: the tail is delivered.
    dataset = AnnDataset(hand_over(toy(), "path", shelf), obs_subset=range(n_rows), window=8)
    loader = dataset.predict_loader(batch_size)
    rows = rows_of(loader)
    assert rows == [list(range(i, min(i + batch_size, n_rows))) for i in range(0, n_rows, batch_size)]
    assert len(loader) == len(rows)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_share_without_padding(shelf: Path, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # pitfall 5: no row comes twice to fill up.
    monkeypatch.setenv("WORLD_SIZE", str(world))
    for n_rows in (0, 1, 8, 9, 11, 40):
        for batch_size in (1, 2, 4):
            found, lengths = [], []
            for rank in range(world):
                monkeypatch.setenv("RANK", str(rank))
                dataset = AnnDataset(hand_over(toy(), "path", shelf), obs_subset=range(n_rows))
                loader = dataset.predict_loader(batch_size)
                rows = rows_of(loader)
                assert len(loader) == len(rows)
                found += flat(rows)
                lengths.append(len(flat(rows)))
            assert found == list(range(n_rows))
            assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("keyword", ["shuffle", "drop_last", "return_index"])
def test_predict_loader_keeps_its_promise(shelf: Path, keyword: str) -> None:
    with pytest.raises(TypeError, match=keyword):
        AnnDataset(hand_over(toy(), "path", shelf)).predict_loader(**{keyword: True})


# --- write_obsm: what is written -------------------------------------------------------------------------------------


def embedding(n: int = 40) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_predictions_land_at_their_rows(path: Path, num_workers: int) -> None:
    subset = np.random.default_rng(1).permutation(40)
    dataset = AnnDataset(path, obs_subset=subset)
    results = [
        (batch["index"], batch["X"] @ torch.arange(7.0)) for batch in dataset.predict_loader(7, num_workers=num_workers)
    ]
    before = anndata.read_h5ad(path)
    write_obsm(path, "X_model", results)
    after = anndata.read_h5ad(path)
    np.testing.assert_array_equal(after.obsm["X_model"], dense(before.X) @ np.arange(7, dtype=np.float32)[:, None])
    # All else is as it was.
    assert set(after.obsm) == {*before.obsm, "X_model"}
    np.testing.assert_array_equal(dense(after.X), dense(before.X))
    np.testing.assert_array_equal(dense(after.raw.X), dense(before.raw.X))
    assert after.obs.equals(before.obs)
    # And it is read as anything else in obsm.
    again = AnnDataset(path, elem="obsm/X_model")
    np.testing.assert_array_equal(again[5]["X"], after.obsm["X_model"][5])


VALUES = embedding()
INDEX = np.random.default_rng(2).permutation(40)
ACCEPTED = [
    (VALUES, {}, VALUES),
    (torch.from_numpy(VALUES).requires_grad_(), {}, VALUES),
    (torch.from_numpy(VALUES).to(torch.bfloat16), {}, torch.from_numpy(VALUES).to(torch.bfloat16).float().numpy()),
    (VALUES[:, 0], {}, VALUES[:, :1]),
    (VALUES[INDEX], {"index": INDEX}, VALUES),
    (VALUES[INDEX], {"index": torch.from_numpy(INDEX)}, VALUES),
    (VALUES[INDEX].tolist(), {"index": INDEX.tolist()}, VALUES.astype(np.float64)),
    ([(INDEX[:9], VALUES[INDEX[:9]]), [INDEX[9:], VALUES[INDEX[9:]]]], {}, VALUES),
    (((INDEX[i : i + 7], VALUES[INDEX[i : i + 7]]) for i in range(0, 40, 7)), {}, VALUES),
    (np.arange(40), {}, np.arange(40)[:, None]),
    # A row that came twice with the same result, as in padded evaluation.
    (VALUES[[*range(40), 3]], {"index": [*range(40), 3]}, VALUES),
    (VALUES[5:], {"index": range(5, 40), "fill": float("nan")}, np.r_[np.full((5, 3), np.nan, np.float32), VALUES[5:]]),
    (np.arange(30), {"index": range(30), "fill": -1}, np.r_[np.arange(30), np.full(10, -1)][:, None]),
]


@pytest.mark.parametrize("number", range(len(ACCEPTED)))
def test_forms_of_results(path: Path, number: int) -> None:
    results, options, expected = ACCEPTED[number]
    adata = toy()
    for target in (adata, path):
        pairs = list(results) if not hasattr(results, "shape") else results
        results = pairs
        write_obsm(target, "X_model", pairs, **options)
    for found in (adata.obsm["X_model"], anndata.read_h5ad(path).obsm["X_model"]):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


REFUSED = [
    (VALUES[:39], {}, ValueError, "39 results for 40 rows; pass index="),
    (VALUES[:39], {"index": range(39)}, ValueError, "1 of 40 rows have no result, the first is row 39.*fill"),
    (VALUES, {"index": range(39)}, ValueError, r"index has shape \(39,\)"),
    (VALUES, {"index": range(1, 41)}, IndexError, "result for row 40; expected 0 to 39"),
    (VALUES, {"index": range(-1, 39)}, IndexError, "result for row -1"),
    (VALUES, {"index": np.arange(40.0)}, TypeError, "index has dtype float64"),
    (np.r_[VALUES, VALUES[:1]], {"index": [*range(40), 7]}, ValueError, "row 7 has two different results"),
    (np.arange(30), {"index": range(30), "fill": float("nan")}, ValueError, "dtype int64 cannot hold; pass floats"),
    (np.arange(30, dtype=np.uint8), {"index": range(30), "fill": -1}, ValueError, "cannot hold"),
    (VALUES.astype(str), {}, TypeError, "results has dtype <U"),
    (np.zeros((40, 2, 2)), {}, ValueError, r"shape \(40, 2, 2\)"),
    ([], {}, ValueError, "results is empty"),
    ([VALUES], {}, TypeError, "result 0 is a ndarray; expected a pair"),
    ([([0], [[1.0]]), ([1], [[1.0, 2.0]])], {}, ValueError, "result 1 has 2 columns, result 0 has 1"),
    (3, {}, TypeError, "results is a int"),
]


@pytest.mark.parametrize(("results", "options", "error", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_results_that_are_refused(path: Path, results: Any, options: dict, error: type, message: str) -> None:
    before = path.read_bytes()
    for target in (toy(), path):
        with pytest.raises(error, match=message):
            write_obsm(target, "X_model", results, **options)
    assert path.read_bytes() == before


@pytest.mark.parametrize("key", ["", "a/b", ".hidden", 3])
def test_keys_that_are_refused(path: Path, key: Any) -> None:
    with pytest.raises(ValueError, match="key is"):
        write_obsm(path, key, VALUES)


def test_a_key_that_is_there(path: Path) -> None:
    before = path.read_bytes()
    for target in (toy(), path):
        with pytest.raises(ValueError, match=r"obsm.*X_pca.* is there already; pass overwrite=True"):
            write_obsm(target, "X_pca", VALUES)
    assert path.read_bytes() == before
    adata = toy()
    for target in (adata, path):
        write_obsm(target, "X_pca", VALUES * 2, overwrite=True)
        write_obsm(target, "X_new", VALUES, overwrite=True)
    for found in (adata, anndata.read_h5ad(path)):
        np.testing.assert_array_equal(found.obsm["X_pca"], VALUES * 2)
        np.testing.assert_array_equal(found.obsm["X_new"], VALUES)


def test_what_is_no_target(tmp_path: Path, path: Path) -> None:
    with pytest.raises(TypeError, match="path_or_adata is a dict"):
        write_obsm({}, "X_model", VALUES)
    with pytest.raises(FileNotFoundError):
        write_obsm(tmp_path / "none.h5ad", "X_model", VALUES)
    (tmp_path / "text.h5ad").write_text("no HDF5")
    with pytest.raises(FormatError, match=r"text\.h5ad: .*the file is not HDF5"):
        write_obsm(tmp_path / "text.h5ad", "X_model", VALUES)
    with h5py.File(tmp_path / "empty.h5ad", "w"):
        pass
    with pytest.raises(FormatError, match="no 'obs'"):
        write_obsm(tmp_path / "empty.h5ad", "X_model", VALUES)
    with h5py.File(path, "r+") as file:
        del file["obsm"]
        file["obsm"] = np.zeros(40, dtype=[("X_pca", "f4", 2)])
    with pytest.raises(UnsupportedError, match=r"before anndata 0\.7"):
        write_obsm(path, "X_model", VALUES)


def test_a_file_without_obsm(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["obsm"]
    write_obsm(path, "X_model", VALUES)
    np.testing.assert_array_equal(anndata.read_h5ad(path).obsm["X_model"], VALUES)


def test_the_file_of_a_backed_anndata_stays(path: Path) -> None:
    adata = anndata.read_h5ad(path, backed="r")
    write_obsm(adata, "X_model", VALUES)
    np.testing.assert_array_equal(adata.obsm["X_model"], VALUES)
    adata.file.close()
    assert "X_model" not in anndata.read_h5ad(path).obsm


# --- write_obsm: who else has the file -------------------------------------------------------------------------------

HOLD = """
import sys, h5py
file = h5py.File(sys.argv[1], sys.argv[2])
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_file_that_another_process_has_open(path: Path, mode: str) -> None:
    command = [sys.executable, "-c", HOLD, str(path), mode]
    environment = {**os.environ, "HDF5_USE_FILE_LOCKING": "TRUE"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(OSError, match="open elsewhere"):
            write_obsm(path, "X_model", VALUES)
        other.stdin.close()
        assert other.wait() == 0
    assert "X_model" not in anndata.read_h5ad(path).obsm
    write_obsm(path, "X_model", VALUES)
    np.testing.assert_array_equal(anndata.read_h5ad(path).obsm["X_model"], VALUES)


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_file_that_is_open_in_this_process(path: Path, mode: str) -> None:
    adata = anndata.read_h5ad(path, backed=mode)
    with pytest.raises(OSError, match=r"open elsewhere.*adata\.file\.close\(\)"):
        write_obsm(path, "X_model", VALUES)
    adata.file.close()
    write_obsm(path, "X_model", VALUES)


def test_a_file_that_may_not_be_written(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    path.chmod(0o444)
    with pytest.raises(PermissionError):
        write_obsm(path, "X_model", VALUES)


# --- write_obsm: failures --------------------------------------------------------------------------------------------


def contents(path: Path) -> dict[str, Any]:
    """Every array of a file, by its place."""
    found = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, node: found.update({name: node[()]} if isinstance(node, h5py.Dataset) else {}))
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in found.items()}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("key", ["X_pca", "X_model"])
def test_a_write_that_fails_leaves_what_was_there(
    path: Path, key: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(path)
    dataset = AnnDataset(path, window=8, cache=0)
    import anndata.io

    write = anndata.io.write_elem

    def fail(group: Any, name: str, value: Any) -> None:
        if when == "after":
            write(group, name, value)
        raise RuntimeError("no more")

    monkeypatch.setattr(anndata.io, "write_elem", fail)
    with pytest.raises(OSError, match=rf"obsm/{key}' could not be written \(no more\).*as it was"):
        write_obsm(path, key, VALUES, overwrite=True)
    monkeypatch.undo()
    assert contents(path) == before
    assert rows_of(dataset.predict_loader(8)) == [list(range(i, i + 8)) for i in range(0, 40, 8)]
    write_obsm(path, key, VALUES, overwrite=True)
    np.testing.assert_array_equal(anndata.read_h5ad(path).obsm[key], VALUES)


def test_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 100))
    with pytest.raises(OSError, match="480 bytes to write and 100 free on the disk; the file is as it was"):
        write_obsm(path, "X_model", VALUES)
    assert path.read_bytes() == before


def test_what_a_killed_process_left_is_cleared(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file[f"obsm/{UNFINISHED}"] = np.zeros(3)
    write_obsm(path, "X_model", VALUES)
    assert set(anndata.read_h5ad(path).obsm) == {"X_pca", "X_model"}


# --- our own write and our own datasets ------------------------------------------------------------------------------


def in_order(n: int = 40, size: int = 8) -> list[list[int]]:
    return [list(range(i, min(i + size, n))) for i in range(0, n, size)]


def test_a_dataset_is_not_stale_after_our_own_write(path: Path) -> None:
    dataset = AnnDataset(path, window=8)
    other = AnnDataset(path, elem="layers/counts")
    assert rows_of(dataset.predict_loader(8)) == in_order()
    before = dense(other[9]["X"])
    for n in range(3):
        write_obsm(path, "X_model", VALUES * n, overwrite=True)
        assert rows_of(dataset.predict_loader(8)) == in_order()
        np.testing.assert_array_equal(other[9]["X"], before)
        rows_of(dataset.get_optimized_dataloader(batch_size=4))


@pytest.mark.parametrize(("context", "persistent"), [("fork", False), ("fork", True), ("forkserver", True)])
def test_workers_are_not_stale_either(path: Path, context: str, persistent: bool) -> None:
    dataset = AnnDataset(path, window=8)
    options = {"num_workers": 1, "multiprocessing_context": context, "persistent_workers": persistent}
    loader = dataset.predict_loader(8, **options)
    assert rows_of(loader) == in_order()
    write_obsm(path, "X_model", VALUES)
    assert rows_of(loader) == in_order()


@pytest.mark.parametrize("prefetch_batches", [0, 4])
@pytest.mark.parametrize("kind", ["csr", "dense"])
def test_a_write_in_mid_epoch(tmp_path: Path, kind: str, prefetch_batches: int) -> None:
    # Dense rows without filters stay in the file until a batch is made of them.
    path = hand_over(toy(kind=kind), "path", tmp_path)
    dataset = AnnDataset(path, window=8, cache=0)
    found = []
    for number, batch in enumerate(dataset.predict_loader(2, prefetch_batches=prefetch_batches)):
        if number in (3, 11):
            write_obsm(path, "X_model", VALUES * number, overwrite=True)
        found += rows_of([batch])
    assert found == in_order(size=2)


def test_a_state_fits_after_our_own_write(path: Path) -> None:
    dataset = AnnDataset(path, window=8)
    loader = dataset.get_optimized_dataloader(batch_size=4, seed=2)
    expected = rows_of(loader)
    loader.sampler.set_epoch(0)
    batches = iter(loader)
    found = rows_of([next(batches)])
    state = loader.state_dict()
    write_obsm(path, "X_model", VALUES)
    again = AnnDataset(path, window=8).get_optimized_dataloader(batch_size=4, seed=2)
    again.load_state_dict(state)
    assert found + rows_of(again) == expected


@pytest.mark.parametrize("kind", ["csr", "dense"])
def test_anyone_elses_write_is_still_told(tmp_path: Path, kind: str) -> None:
    # pitfall 27
    path = hand_over(toy(kind=kind), "path", tmp_path)
    dataset = AnnDataset(path, cache=0)
    write_obsm(path, "X_model", VALUES)
    assert int(dataset[3]["obs_row"]) == 3
    with h5py.File(path, "r+") as file:
        file["obsm/foreign"] = np.zeros((40, 100))
    with pytest.raises(StaleFileError):
        dataset[3]
    # A write of ours on top of it does not make it right.
    write_obsm(path, "X_other", VALUES)
    with pytest.raises(StaleFileError):
        dataset[3]


def test_a_dataset_read_through_h5py_lets_go_for_the_write(path: Path) -> None:
    # A matrix of big-endian integers with a filter that the Rust reader declines.
    with h5py.File(path, "r+") as file:
        x = dense(toy(kind="dense").X)
        del file["X"]
        file.create_dataset("X", data=x, chunks=(4, 7), scaleoffset=0, dtype="int32")
        file["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    with pytest.warns(UserWarning, match="through h5py"):
        dataset = AnnDataset(path, window=8)
    assert rows_of(dataset.predict_loader(8)) == in_order()
    write_obsm(path, "X_model", VALUES)
    assert rows_of(dataset.predict_loader(8)) == in_order()
    with pytest.raises(ValueError, match="is there already"):
        write_obsm(path, "X_model", VALUES)
    assert rows_of(dataset.predict_loader(8)) == in_order()
