"""Results as DataFrames, and as a loop gives them: none held without need."""

import os
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from tests.results.results import VALUES, N, predictions
from tests.support.toys import toy

from annfeed import AnnDataset, write_obsm
from annfeed.results.rows import SPOOL_BYTES

FRAME = pd.DataFrame(
    {
        "CD3": VALUES[:, 0],
        "CD19": np.arange(N),
        "clone": [f"clone {i % 5}" for i in range(N)],
        "kind": pd.Categorical(["x", "y"] * 20, ["y", "x"]),
        "seen": np.arange(N) % 2 == 0,
    }
)


# --- DataFrames ------------------------------------------------------------------------------------------------------


def frames(form: str) -> tuple[Any, dict]:
    order = np.random.default_rng(3).permutation(N)
    if form == "in order":
        return FRAME, {}
    if form == "named":
        return FRAME.set_axis([f"cell{i}" for i in range(N)]).iloc[order], {}
    if form == "index":
        return FRAME.iloc[order].reset_index(drop=True), {"index": order}
    shuffled = FRAME[["kind", "seen", "clone", "CD19", "CD3"]]
    return [(order[:9], FRAME.iloc[order[:9]]), (order[9:], shuffled.iloc[order[9:]])], {}


@pytest.mark.parametrize("form", ["in order", "named", "index", "batches"])
def test_a_dataframe_is_written_as_anndata_writes_it(path: Path, tmp_path: Path, form: str) -> None:
    expected = toy()
    expected.obsm["proteins"] = FRAME.set_axis(expected.obs_names)
    expected.write_h5ad(tmp_path / "expected.h5ad")
    results, options = frames(form)
    adata = toy()
    for target in (path, adata):
        write_obsm(target, "proteins", results, **options)
    adata.write_h5ad(tmp_path / "memory.h5ad")
    for found in (path, tmp_path / "memory.h5ad"):
        pd.testing.assert_frame_equal(
            anndata.read_h5ad(found).obsm["proteins"],
            anndata.read_h5ad(tmp_path / "expected.h5ad").obsm["proteins"],
            check_index_type=False,
            check_dtype=False,  # text: plain or pandas' own
        )


def test_a_dataframe_goes_into_many_files(files: list[Path]) -> None:
    dataset = AnnDataset(files)
    write_obsm(dataset, "proteins", FRAME)
    for path, start, stop in zip(files, (0, 12, 32), (12, 32, 40), strict=True):
        found = anndata.read_h5ad(path).obsm["proteins"]
        assert found.index.tolist() == [f"cell{i}" for i in range(start, stop)]
        assert found["CD19"].tolist() == list(range(start, stop))
        assert found["kind"].tolist() == FRAME["kind"].iloc[start:stop].tolist()


@pytest.mark.parametrize(
    ("results", "error", "message"),
    [
        (FRAME.iloc[:9], ValueError, "9 results for 40 rows"),
        (FRAME.set_axis(range(1, N + 1)), ValueError, "the index of results has 1, which is no obs name"),
        (FRAME.set_axis(["cell0"] * N), ValueError, "names that are there more than once"),
        ([(range(20), FRAME.iloc[:20]), (range(20, N), FRAME.iloc[20:, 1:])], ValueError, r"columns \['CD3'\]"),
        ([(range(20), FRAME[["CD3"]].iloc[:20]), (range(20, N), VALUES[20:])], TypeError, "result 1 is an array"),
        ([(range(20), FRAME.iloc[:20])], ValueError, "20 of 40 rows have no result"),
        (FRAME.set_axis([f"cell{i}" for i in range(N)]).iloc[:9], ValueError, "31 of 40 rows have no result"),
        (FRAME[["CD3", "CD3"]], ValueError, "expected different names"),
        (FRAME[[]], ValueError, "expected different names"),
    ],
)
def test_dataframes_that_are_refused(path: Path, results: Any, error: type[Exception], message: str) -> None:
    before = path.read_bytes()
    with pytest.raises(error, match=message):
        write_obsm(path, "proteins", results)
    assert path.read_bytes() == before


# --- loops -----------------------------------------------------------------------------------------------------------


def test_dicts_as_a_loop_gives_them(path: Path) -> None:
    rows = np.arange(N)
    write_obsm(path, "one", ({"index": rows[i : i + 9], "scores": VALUES[i : i + 9]} for i in range(0, N, 9)))
    write_obsm(path, "X_two", [{"index": rows, "X_two": VALUES, "loss": 3.0}])
    write_obsm(path, "X_three", {"index": torch.from_numpy(rows), "X_three": torch.from_numpy(VALUES)})
    found = anndata.read_h5ad(path).obsm
    for key in ("one", "X_two", "X_three"):
        np.testing.assert_array_equal(found[key], VALUES)


def test_padding_of_several_ranks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaders that repeat rows to make ranks even mark these; what was marked is left out, whatever it says."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    results = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        loader = AnnDataset(path).get_optimized_dataloader(13, seed=0, return_index=True)
        for batch in loader:
            values = torch.where(batch["is_padding"], -1.0, batch["obs_score"])
            results.append({"index": batch["index"], "is_padding": batch["is_padding"], "score": values})
    assert sum(int(batch["is_padding"].sum()) for batch in results) > 0
    monkeypatch.delenv("WORLD_SIZE")
    write_obsm(path, "score", results)
    np.testing.assert_allclose(anndata.read_h5ad(path).obsm["score"][:, 0], np.arange(N) / 4)


def test_a_row_twice_with_results_that_differ_by_rounding(path: Path) -> None:
    again = np.nextafter(VALUES[:5], np.float32(2))
    write_obsm(path, "X_model", [(range(N), VALUES), (range(5), again)])
    np.testing.assert_array_equal(anndata.read_h5ad(path).obsm["X_model"], VALUES)  # the first stays
    for wrong in (VALUES[:5] * 1.01, np.full((5, 3), np.nan, np.float32)):
        with pytest.raises(ValueError, match="row 0 has two different results"):
            write_obsm(path, "X_other", [(range(N), VALUES), (range(5), wrong)])
    odd = np.array([[np.nan], [np.inf], [-np.inf]])
    write_obsm(path, "X_odd", [(range(3), odd), (range(3), odd)], fill=0)


def test_batches_of_a_generator_are_not_held(path: Path) -> None:
    alive: list[weakref.ref] = []

    def results() -> Iterator[tuple[Any, Any]]:
        for start in range(0, N, 2):
            assert sum(one() is not None for one in alive) <= 1
            values = np.zeros((2, 3))
            alive.append(weakref.ref(values))
            yield [start, start + 1], values

    write_obsm(path, "X_model", results())
    assert len(alive) == 20


def test_a_generator_may_read_the_file_that_gets_its_results(path: Path) -> None:
    dataset = AnnDataset(path, window=8, cache=0)
    write_obsm(path, "X_model", predictions(dataset))
    write_obsm(path, "X_model", predictions(dataset), overwrite=True)
    np.testing.assert_array_equal(anndata.read_h5ad(path).obsm["X_model"][:, 0], np.arange(N) * 2)


def test_a_generator_that_fails_leaves_the_file(path: Path) -> None:
    def results() -> Iterator[tuple[Any, Any]]:
        yield range(20), VALUES[:20]
        raise RuntimeError("out of memory")

    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="out of memory"):
        write_obsm(path, "X_model", results())
    assert path.read_bytes() == before


@pytest.mark.parametrize("wider", [False, True])
def test_large_results_are_not_held_in_memory(tmp_path: Path, wider: bool) -> None:
    """More than a file's worth of results go by way of the disk; a row may come twice, or not at all."""
    n, width = 5_000, 4_000
    assert n * width * 4 > SPOOL_BYTES
    path = tmp_path / "wide.h5ad"
    anndata.AnnData(np.zeros((n, 1), np.float32)).write_h5ad(path)

    def results() -> Iterator[tuple[Any, Any]]:
        for start in range(0, n - 10, 100):
            rows = np.arange(start, min(start + 100, n - 10))[::-1]
            yield rows, np.broadcast_to(rows[:, None], (len(rows), width)).astype(np.float32)
        yield [7], np.full((1, width), 7, np.float64 if wider else np.float32)

    tracemalloc.start()
    write_obsm(path, "X_model", results(), fill=-1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SPOOL_BYTES
    with h5py.File(path) as file:
        found = file["obsm/X_model"]
        assert found.dtype == (np.float64 if wider else np.float32)
        np.testing.assert_array_equal(found[:, -1], [*range(n - 10), *[-1] * 10])
    assert os.listdir(tmp_path) == ["wide.h5ad"]  # the temporary file is gone
