"""Columns and arguments in pyarrow's memory: those that pandas makes where pyarrow is installed, and its own arrays."""

from importlib.metadata import version

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from tests.obs.expected import assert_is, expected, expected_codes

from annfeed import AnnDataset
from annfeed.obs.table import ObsTable

N_ROWS = 6
TEXTS = ["b", "a", None, "b", "c", "a"]


def arrow(values, kind):
    return pd.Series(pd.array(values, dtype=pd.ArrowDtype(kind)))


#: The column, and the plain one of the same values, of which `expected` knows what it has to become.
COLUMNS = {
    "str": (pd.Series(TEXTS, dtype="str"), pd.Series(TEXTS, dtype=object)),
    "string": (pd.Series(TEXTS, dtype="string[pyarrow]"), pd.Series(TEXTS, dtype=object)),
    "large_string": (arrow(TEXTS, pa.large_string()), pd.Series(TEXTS, dtype=object)),
    "binary": (arrow([t and t.encode() for t in TEXTS], pa.binary()), pd.Series(TEXTS, dtype=object)),
    "dictionary": (arrow(TEXTS, pa.dictionary(pa.int32(), pa.string())), pd.Series(TEXTS, dtype=object)),
    "categorical": (
        pd.Series(pd.Categorical(pd.Series(TEXTS, dtype="string[pyarrow]"), ["c", "b", "a", "z"])),
        pd.Series(pd.Categorical(TEXTS, ["c", "b", "a", "z"])),
    ),
    "integers": (arrow([1, 2, 3, 4, 5, 2**60], pa.int64()), pd.Series([1, 2, 3, 4, 5, 2**60])),
    "bytes": (arrow([1, 2, 3, 4, 5, 255], pa.uint8()), pd.Series([1, 2, 3, 4, 5, 255], dtype="uint8")),
    "integers_missing": (
        arrow([1, None, 3, 4, 5, 6], pa.int32()),
        pd.Series([1, None, 3, 4, 5, 6], dtype="Int32"),
    ),
    "bools": (arrow([True, False] * 3, pa.bool_()), pd.Series([True, False] * 3)),
    "bools_missing": (arrow([True, None] * 3, pa.bool_()), pd.Series([True, None] * 3, dtype="boolean")),
    "floats": (arrow([1.5, None, 3, 4, 5, 6], pa.float32()), pd.Series([1.5, np.nan, 3, 4, 5, 6], dtype="float32")),
    "dates": (
        arrow(pd.date_range("2020-01-01", periods=N_ROWS, unit="us"), pa.timestamp("us")),
        pd.Series(pd.date_range("2020-01-01", periods=N_ROWS)),
    ),
    "lists": (
        arrow([[1], [2, 3], None, [1], [], [1]], pa.list_(pa.int64())),
        pd.Series(["[1]", "[2, 3]", None, "[1]", "[]", "[1]"], dtype=object),
    ),
    "structs": (
        arrow([{"a": 1}, {"a": 2}, None, {"a": 1}, {"a": 3}, {"a": 1}], pa.struct([("a", pa.int64())])),
        pd.Series(["{'a': 1}", "{'a': 2}", None, "{'a': 1}", "{'a': 3}", "{'a': 1}"], dtype=object),
    ),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_is_what_the_plain_one_is(name):
    column, plain = COLUMNS[name]
    table = ObsTable.from_frame(pd.DataFrame({name: column}))
    rows = [5, 0, 2, 2, 1]
    assert_is(table.take(rows)[f"obs_{name}"], *expected(plain, rows))
    codes = expected_codes(plain)
    if codes is None:
        assert name not in table.categories
    else:
        assert table.take(range(N_ROWS), categories="code")[f"obs_{name}"].tolist() == codes[0]
        assert [str(category) for category in table.categories[name]] == codes[1]


@pytest.mark.parametrize("join", ["inner", "outer"])
@pytest.mark.parametrize("name", COLUMNS)
def test_joined_with_the_plain_one_and_with_none(name, join):
    column, plain = COLUMNS[name]
    frames = [{name: column}, {name: plain}] + [{"other": plain}] * (join == "outer")
    parts = [ObsTable.from_frame(pd.DataFrame(frame)) for frame in frames]
    joined = ObsTable.concat(parts[:2], ["a", "b"], join)
    if join == "outer":
        with pytest.warns(UserWarning, match="missing values there"):
            joined = ObsTable.concat(parts, ["a", "b", "c"], join)
    found = joined.take(range(joined.n_rows))[f"obs_{name}"]
    if isinstance(found, torch.Tensor):
        found = ["nan" if number != number else float(number) for number in found.tolist()]
    dtype, values = expected(plain, range(N_ROWS))
    values = values if dtype is str else ["nan" if number != number else float(number) for number in values]
    assert found == values * 2 + ["nan"] * N_ROWS * (join == "outer")


def adata_of(*names):
    obs = pd.DataFrame({name: COLUMNS[name][0] for name in names})
    obs.index = pd.Index([f"cell{i}" for i in range(N_ROWS)], dtype="string[pyarrow]")
    var = pd.DataFrame(index=pd.Index(["CD3E", "CD4", "CD8A"], dtype="string[pyarrow]"))
    return anndata.AnnData(np.arange(N_ROWS * 3, dtype=np.float32).reshape(N_ROWS, 3), obs=obs, var=var)


@pytest.mark.parametrize(
    "written",
    [
        False,
        pytest.param(
            True,
            marks=pytest.mark.skipif(
                version("anndata").startswith("0.11."), reason="anndata 0.11 writes no text of pyarrow"
            ),
        ),
    ],
)
def test_names_and_columns_of_an_anndata_and_of_the_file_that_it_becomes(tmp_path, written):
    names = ["string", "categorical"] + ["str"] * isinstance(COLUMNS["str"][0].dtype, pd.StringDtype)
    adata = adata_of(*names)
    source = adata
    if written:
        source = tmp_path / "arrow.h5ad"
        with anndata.settings.override(allow_write_nullable_strings=True):
            adata.write_h5ad(source, convert_strings_to_categoricals=False)
    dataset = AnnDataset(source, var_subset=pa.array(["CD8A", "CD3E"]))
    assert dataset.obs_names.tolist() == [f"cell{i}" for i in range(N_ROWS)]
    assert dataset.var_names.tolist() == ["CD8A", "CD3E"]
    batch = next(iter(dataset.get_optimized_dataloader(N_ROWS, shuffle=False)))
    np.testing.assert_array_equal(batch["X"], adata.X[:, [2, 0]])
    for name in names:
        assert batch[f"obs_{name}"] == ["nan" if text is None else text for text in TEXTS]


@pytest.mark.parametrize(
    "subset",
    [
        pa.array([False, True, True, False, False, False]),
        pa.chunked_array([[1], [2]]),
        arrow([1, 2], pa.int32()),
        arrow([False, True, True, False, False, False], pa.bool_()),
        pd.Series(
            pd.array([False, True, True, False, False, False], dtype="bool[pyarrow]"),
            index=pd.Index([f"cell{i}" for i in range(N_ROWS)], dtype="string[pyarrow]"),
        ),
    ],
    ids=["mask", "chunks", "positions", "mask_of_pandas", "mask_by_index"],
)
def test_rows_are_chosen_by_what_pyarrow_holds(subset):
    dataset = AnnDataset(adata_of("string"), obs_subset=subset)
    assert dataset.obs_names.tolist() == ["cell1", "cell2"]
    assert torch.stack([dataset[i]["X"] for i in range(2)]).tolist() == [[3, 4, 5], [6, 7, 8]]


def test_a_mask_by_index_goes_by_its_names():
    names = [f"cell{i}" for i in range(N_ROWS)]
    mask = pd.Series(
        pd.array([True, False, False, False, False, False], dtype="bool[pyarrow]"),
        index=pd.Index(names[::-1], dtype="string[pyarrow]"),
    )
    assert AnnDataset(adata_of("string"), obs_subset=mask).obs_names.tolist() == ["cell5"]


@pytest.mark.parametrize("subset", [pa.array([1, None]), pa.array([True, None] * 3), arrow([1, None], pa.int64())])
def test_missing_values_among_rows_are_refused(subset):
    with pytest.raises((TypeError, ValueError), match="obs_subset"):
        AnnDataset(adata_of("string"), obs_subset=subset)


@pytest.mark.parametrize("make", [pa.array, lambda values: arrow(values, pa.float64())], ids=["pyarrow", "pandas"])
def test_weights(make):
    dataset = AnnDataset(adata_of("string"))
    values = [0.0, 0.0, 5.0, 0.0, 0.0, 0.0]
    loader = dataset.get_optimized_dataloader(6, weights=make(values), seed=0)
    assert {tuple(row) for batch in loader for row in batch["X"].tolist()} == {(6, 7, 8)}
    with pytest.raises((TypeError, ValueError), match="weights"):
        dataset.get_optimized_dataloader(6, weights=make([1.0, None, 1.0, 1.0, 1.0, 1.0]))


def test_balanced_by_a_column():
    adata = adata_of("dictionary", "bools")[[0, 1, 3, 4, 5]].copy()
    loader = AnnDataset(adata).get_optimized_dataloader(300, balance="dictionary", seed=0, n_samples=300)
    (batch,) = list(loader)
    counts = pd.Series(batch["obs_dictionary"]).value_counts()
    assert set(counts.index) == {"a", "b", "c"}
    assert counts.min() > 60
