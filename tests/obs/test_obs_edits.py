"""obs that is edited, viewed, pickled."""

import pickle

import anndata
import numpy as np
import pandas as pd
import pytest

from annfeed.errors import StaleFileError, UnknownNameError
from annfeed.obs.table import ObsTable

EDITS = [
    # what the user does; the column it concerns and its value in row 0 afterwards
    ("adata.obs['n'] = [10, 20, 30]", "n", 10),
    ("adata.obs['n'] = [1.5, 2.5, 3.5]", "n", 1.5),
    ("adata.obs['t'] = ['A', 'B', 'C']", "t", "A"),
    ("adata.obs['c'] = adata.obs['c'].cat.rename_categories({'u': 'U'})", "c", "U"),
    ("adata.obs = adata.obs.assign(t=['q', 'r', 's'])", "t", "q"),
    ("adata.obs['new'] = ['i', 'j', 'k']", "new", "i"),
]
EDITS_INSIDE = [
    ("adata.obs.loc['x', 't'] = 'A'", "t", "A"),
    ("writeable(adata.obs['t'])[0] = 'A'", "t", "A"),
    ("writeable(adata.obs['n'])[0] = 11", "n", 11),
    ("adata.obs.loc['x', 'c'] = 'v'", "c", "v"),
]


def writeable(column):
    """The values of a column themselves, which pandas 3 hands out read-only, or (text) as a copy."""
    array = column.array
    if not hasattr(array, "_ndarray"):  # text in pyarrow's memory
        array._readonly = False
        return array
    array._ndarray.flags.writeable = True
    return array._ndarray


def value(taken):
    return taken[0] if isinstance(taken, list) else taken[0].item()


@pytest.mark.parametrize(("edit", "column", "want"), EDITS)
def test_a_replaced_column_or_obs_is_seen_by_the_next_take(adata, edit, column, want):
    table = ObsTable.from_anndata(adata)
    table.take([0])
    exec(edit, {"adata": adata, "writeable": writeable})
    assert value(table.take([0])[f"obs_{column}"]) == want


@pytest.mark.parametrize(("edit", "column", "want"), [*EDITS, *EDITS_INSIDE])
@pytest.mark.parametrize("then", ["take", "now", "pickle"])
def test_any_edit_is_seen_by_a_take_in_an_epoch_and_in_a_pickle(adata, edit, column, want, then):
    table = ObsTable.from_anndata(adata)
    table.take([0])
    exec(edit, {"adata": adata, "writeable": writeable})
    if then == "now":
        table = table.now()
    elif then == "pickle":
        table = pickle.loads(pickle.dumps(table))
    assert value(table.take(np.array([0]))[f"obs_{column}"]) == want


def test_a_column_is_converted_once(adata, monkeypatch):
    import annfeed.obs.table

    converted = []
    convert = annfeed.obs.table.convert
    monkeypatch.setattr(annfeed.obs.table, "convert", lambda s, where: converted.append(s.name) or convert(s, where))
    adata.obs["d"] = pd.to_datetime(["2020", "2021", None])
    adata.obs["m"] = pd.array([1, None, 2], dtype="Int64")
    adata.obs["s"] = pd.array(["a", None, "b"], dtype="string")
    table = ObsTable.from_anndata(adata)
    for _ in range(3):
        table.take([0])
    assert converted == ["n", "t", "c", "d", "m", "s"]
    adata.obs["n"] = [4, 5, 6]
    table.take([0])
    assert converted[6:] == ["n"]


def test_a_column_that_was_dropped_is_an_error_that_names_it(adata):
    table = ObsTable.from_anndata(adata, columns=["n"])
    del adata.obs["n"]
    with pytest.raises(UnknownNameError, match="no column 'n'"):
        table.take([0])


def test_a_batch_is_memory_of_its_own(adata):
    table = ObsTable.from_anndata(adata)
    taken = table.take([0, 1])
    taken["obs_n"] += 100
    taken["obs_t"][0] = "changed"
    assert table.take([0])["obs_n"].tolist() == [1]
    assert table.take([0])["obs_t"] == ["a"]
    assert adata.obs["n"].tolist() == [1, 2, 3]


def test_a_frame_is_a_copy(adata):
    table = ObsTable.from_anndata(adata, columns=["t", "n"])
    frame = table.frame()
    frame.loc["x", "n"] = 100
    assert list(frame) == ["t", "n"]
    assert adata.obs.loc["x", "n"] == 1


def test_a_view_gives_its_own_rows(adata):
    table = ObsTable.from_anndata(adata[[2, 0]])
    for t in (table, pickle.loads(pickle.dumps(table))):
        assert t.n_rows == 2
        assert list(t.names) == ["z", "x"]
        assert t.take([0, 1])["obs_t"] == ["c", "a"]
        assert type(t.frame()) is pd.DataFrame


def test_a_file_table_pickles_as_its_path(small_file):
    table = ObsTable.from_file(small_file, columns=["kommentar"])
    unread = pickle.dumps(table)
    _ = table.take([0]), table.names
    assert pickle.dumps(table) == unread
    assert "ü".encode() not in unread
    assert pickle.loads(unread).take([1]) == {"obs_kommentar": ["ü"]}
    small_file.unlink()
    with pytest.raises(StaleFileError, match="small"):
        pickle.loads(unread).take([1])


def test_an_anndata_table_pickles_its_selected_columns_only(adata):
    adata.X = np.zeros((3, 2), np.float32)
    adata.obs["huge"] = ["h" * 100_000] * 3
    table = ObsTable.from_anndata(adata, columns=["t"])
    pickled = pickle.dumps(table)
    assert len(pickled) < 10_000
    again = pickle.loads(pickled)
    assert again.take([2, 0]) == {"obs_t": ["c", "a"]}
    assert list(again.names) == ["x", "y", "z"]


def test_a_backed_anndata_pickles_without_its_file(small_file):
    backed = anndata.read_h5ad(small_file, backed="r")
    backed.obs["mine"] = [1, 2, 3, 4]
    try:
        for source in (backed, backed[1:]):
            again = pickle.loads(pickle.dumps(ObsTable.from_anndata(source, columns=["mine"])))
            assert again.take([0])["obs_mine"].tolist() == [source.obs["mine"].iloc[0]]
    finally:
        backed.file.close()


def test_an_epoch_keeps_the_columns_of_a_file(small_file):
    table = ObsTable.from_file(small_file, columns=["kommentar"])
    table.take([0])
    small_file.unlink()
    table = table.now()
    assert table.take([1]) == {"obs_kommentar": ["ü"]}
