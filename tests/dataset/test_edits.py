"""Data that changes under a dataset: an epoch delivers what the AnnData held when it began, or says what changed.

The oracle is anndata: a copy of what the object gives, taken when an epoch begins.
"""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from annfeed import AnnDataset, StaleDataError, UnknownNameError

ELEM = {"X": "X", "counts": "layers/counts", "emb": "obsm/emb", "table": "obsm/table"}
N, GENES = 12, 5
ROWS, COLUMNS = [9, 2, 7, 4, 11, 0], [3, 0, 4]
IS_OF_0_11 = version("anndata").startswith("0.11.")
MAKE = {"dense": np.array, "csr": sp.csr_matrix, "csc": sp.csc_matrix}

pytestmark = pytest.mark.filterwarnings("ignore")


def toy(layout: str = "csr") -> anndata.AnnData:
    values = np.arange(1, N * GENES + 1, dtype=np.float32).reshape(N, GENES)
    obs = pd.DataFrame(
        {
            "number": np.arange(N),
            "text": [f"t{i % 4}" for i in range(N)],
            "kind": pd.Categorical(list("abc") * 4),
            "nullable": pd.array([None, *range(1, N)], dtype="Int64"),
        },
        index=[f"cell{i}" for i in range(N)],
    )
    adata = anndata.AnnData(MAKE[layout](values), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]))
    adata.layers["counts"] = MAKE[layout](values + 1000)
    adata.obsm["emb"] = values[:, :2] + 2000
    adata.obsm["table"] = pd.DataFrame({"a": values[:, 0] + 3000, "b": np.arange(N)}, index=obs.index)
    return adata


def dense(matrix: Any) -> np.ndarray:
    if isinstance(matrix, pd.DataFrame):
        return matrix.to_numpy(copy=True)
    matrix = matrix.to_memory() if hasattr(matrix, "to_memory") else matrix
    return matrix.toarray() if sp.issparse(matrix) else np.array(matrix[...])


def held(adata: anndata.AnnData) -> dict[str, Any]:
    """What the object gives now, copied."""
    obs = pd.DataFrame({name: list(adata.obs[name]) for name in adata.obs}, index=adata.obs_names)
    matrices = {"X": adata.X, "counts": adata.layers["counts"], "emb": adata.obsm["emb"]}
    matrices["table"] = adata.obsm["table"]
    return {**{key: dense(value) for key, value in matrices.items()}, "obs": obs}


def check(batch: dict[str, Any], expected: dict[str, Any], rows: Any) -> None:
    for key in ELEM:
        np.testing.assert_array_equal(batch[key].numpy(), expected[key][rows], err_msg=key)
    for name in expected["obs"]:
        wanted = expected["obs"][name].iloc[rows]
        got = list(batch[f"obs_{name}"])
        if isinstance(got[0], str):
            assert got == [str(value) for value in wanted], name
        else:
            np.testing.assert_array_equal(np.array(got, float), pd.to_numeric(wanted).to_numpy(float, na_value=np.nan))
    assert len(batch) == len(ELEM) + len(expected["obs"].columns) + 1


class Edits(RuleBasedStateMachine):
    """Somebody works with an AnnData while a dataset reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.running: tuple[Any, dict[str, Any]] | None = None
        self.count = 0

    @initialize(
        # anndata 0.11 itself cannot read a view of rows and columns of a dense matrix in a file.
        form=st.sampled_from(["memory", "backed", "view"] + ["view of backed"] * (not IS_OF_0_11)),
        layout=st.sampled_from(["dense", "csr", "csc"]),
        workers=st.sampled_from([0, 0, 0, 2]),
        listed=st.booleans(),
        part=st.booleans(),
    )
    def hand_over(self, form: str, layout: str, workers: int, listed: bool, part: bool) -> None:
        self.whole = toy("csr" if "backed" in form and layout == "csc" else layout)
        self.folder: Any = None
        if "backed" in form:
            self.folder = Path(FOLDER[0]) / f"{layout}.h5ad"
            if not self.folder.exists():
                self.whole.write_h5ad(self.folder)
            self.whole = anndata.read_h5ad(self.folder, backed="r")
        self.object = self.whole[ROWS][:, COLUMNS] if form == "view" else self.whole
        self.object = self.whole[ROWS, COLUMNS] if form == "view of backed" else self.object
        self.workers, self.listed, self.part = workers, listed, part
        self.make()

    def make(self) -> None:
        self.close()
        try:
            held(self.object)
            source = [self.object, self.object] if self.listed else self.object
            self.dataset = AnnDataset(source, elem=ELEM, return_index=True)
            if self.part:
                self.dataset = self.dataset.subset(slice(None, None, -2)).split({"a": 0.7, "b": 0.3})["a"]
        except (KeyError, IndexError, ValueError):  # nothing can be made of it as it is now
            self.whole = self.object = toy()
            return self.make()
        self.loader = self.dataset.get_optimized_dataloader(4, seed=1, num_workers=self.workers)
        self.names = self.object.obs_names.copy(), self.object.var_names.copy()
        self.widths = [self.object.obsm[name].shape[1] for name in ("emb", "table")]

    def close(self) -> None:
        if self.running is not None:
            self.running[0].close()
        self.running = None

    teardown = close

    @property
    def in_memory(self) -> bool:
        return not self.object.isbacked and not self.object.is_view

    def refused(self) -> bool:
        """Whether cells, genes or matrices are not those that the dataset was made of."""
        try:
            now = held(self.object)
        except (KeyError, IndexError, ValueError):
            return True
        same = self.object.obs_names.equals(self.names[0]) and self.object.var_names.equals(self.names[1])
        if self.object.is_view:
            whole = self.object._adata_ref
            rows = np.arange(whole.n_obs)[self.object._oidx]
            columns = np.arange(whole.n_vars)[self.object._vidx]
            same &= whole.obs_names[rows].equals(self.names[0]) and whole.var_names[columns].equals(self.names[1])
        return not same or [now[name].shape[1] for name in ("emb", "table")] != self.widths

    def rows_of(self, index: Any) -> np.ndarray:
        if self.listed:
            return index % len(self.names[0])
        if self.object.is_view and self.object.isbacked:
            return np.array([ROWS.index(row) for row in index.tolist()])
        return index

    # --- reading -----------------------------------------------------------------------------------------------------

    @rule()
    def begin_an_epoch(self) -> None:
        self.close()
        batches = iter(self.loader)
        if self.refused():
            with pytest.raises((StaleDataError, UnknownNameError)):
                next(batches)
            self.make()
            return
        self.running = batches, held(self.object)
        self.read_a_batch()

    @precondition(lambda self: self.running is not None)
    @rule()
    def read_a_batch(self) -> None:
        batches, expected = self.running
        batch = next(batches, None)
        if batch is None:
            self.running = None
        else:
            check(batch, expected, self.rows_of(batch["index"].numpy()))

    @rule(number=st.integers(0, 5))
    def read_an_item(self, number: int) -> None:
        number %= len(self.dataset)
        if self.refused():
            with pytest.raises((StaleDataError, UnknownNameError)):
                self.dataset[number]
            self.make()
            return
        item = self.dataset.__getitems__([number, 0])
        batch = self.dataset.get_collate_fn()(item)
        check(batch, held(self.object), self.rows_of(batch["index"].numpy()))

    @rule()
    def make_another(self) -> None:
        self.make()

    # --- edits -------------------------------------------------------------------------------------------------------

    def next(self) -> int:
        self.count += 1
        return self.count

    @rule(of=st.sampled_from(["object", "whole"]))
    def replace_columns(self, of: str) -> None:
        adata, new = getattr(self, of), self.next()
        if adata.is_view and (adata.isbacked or self.refused()):
            return  # anndata cannot write to one, nor to one whose cells are gone
        adata.obs["number"] = new * 100 + np.arange(adata.n_obs)
        adata.obs["text"] = [f"{new}-{i % 3}" for i in range(adata.n_obs)]

    @rule(of=st.sampled_from(["object", "whole"]), column=st.sampled_from(["number", "text", "nullable"]))
    def write_into_a_column(self, of: str, column: str) -> None:
        adata, new = getattr(self, of), self.next()
        if not adata.is_view:
            if isinstance(adata.obs[column].dtype, pd.CategoricalDtype):
                return  # texts are, once they were in a file
            adata.obs.loc[adata.obs_names[0], column] = f"new {new}" if column == "text" else new

    @rule()
    def replace_x(self) -> None:
        if not self.whole.isbacked:
            self.whole.X = self.whole.X * 2

    @precondition(lambda self: self.running is None)
    @rule(of=st.sampled_from(["X", "counts"]))
    def overwrite_numbers(self, of: str) -> None:
        if of == "counts" or not self.whole.isbacked:
            matrix = self.whole.X if of == "X" else self.whole.layers.get("counts")
            if matrix is not None:
                values = matrix.data if sp.issparse(matrix) and matrix.format == "csr" else matrix
                if not sp.issparse(values):  # a CSC matrix is looked at when an epoch begins, not at each item
                    values += 1

    @rule()
    def replace_layer_and_obsm(self) -> None:
        if "counts" in self.whole.layers:
            self.whole.layers["counts"] = self.whole.layers["counts"] * 2
        self.whole.obsm["emb"] = np.array(self.whole.obsm["emb"]) + 1

    @rule(whole=st.booleans())
    def edit_the_table(self, whole: bool) -> None:
        if whole:
            self.whole.obsm["table"] = self.whole.obsm["table"] * 2
        else:
            self.whole.obsm["table"].iloc[2:, 1] += self.next()

    @rule()
    def widen_the_table(self) -> None:
        self.whole.obsm["table"][f"more {self.next()}"] = 1.0

    @rule()
    def delete_the_layer(self) -> None:
        if "counts" in self.whole.layers:
            del self.whole.layers["counts"]

    @rule()
    def widen_obsm(self) -> None:
        self.whole.obsm["emb"] = np.hstack([self.whole.obsm["emb"], np.ones((self.whole.n_obs, 1), np.float32)])

    @precondition(lambda self: not self.whole.isbacked and self.whole.n_obs > 6)
    @rule(axis=st.integers(0, 1), reverse=st.booleans())
    def subset_in_place(self, axis: int, reverse: bool) -> None:
        n = self.whole.shape[axis]
        chosen = np.arange(n)[::-1] if reverse else np.arange(1, n)
        if n > 4:
            (self.whole._inplace_subset_var if axis else self.whole._inplace_subset_obs)(chosen)

    @rule(axis=st.sampled_from(["obs_names", "var_names"]), same=st.booleans())
    def set_names(self, axis: str, same: bool) -> None:
        if not self.whole.isbacked:
            setattr(self.whole, axis, [name if same else f"{name}'" for name in getattr(self.whole, axis)])

    @precondition(lambda self: self.object.is_view and not self.object.isbacked)
    @rule()
    def write_to_the_view(self) -> None:
        if not self.refused():
            self.object.obs["number"] = self.next()
            assert not self.object.is_view


FOLDER: list[Any] = [None]


def test_any_edits_at_any_time(tmp_path: Path) -> None:
    FOLDER[0] = tmp_path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_state_machine_as_test(
            Edits,
            settings=settings(
                max_examples=30, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
