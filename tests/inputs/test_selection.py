"""Which rows, which columns, which positions: tables of what users write and what it means."""

from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from annfeed import AnnDataset
from annfeed.errors import UnknownNameError
from annfeed.inputs.selection import as_positions, column_subset, near_matches, numbers_of_rows, row_subset
from annfeed.loading.sampler import given_positions

MASK = [True, False, False, True, True]
NAMES = pd.Index(["CD3E", "CD8A", "CD4", "MS4A1", "GNLY"])


class Sized:
    """A sequence that numpy takes for one by its methods alone."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> int:
        return [4, 1][i]


#: Of 5 rows or columns: what is written, and which ones it means.
POSITIONS: list[tuple[Any, list[int]]] = [
    ([3, 0, 3], [3, 0, 3]),
    ((4,), [4]),
    (range(1, 5, 2), [1, 3]),
    (np.array([2, 1], "int8"), [2, 1]),
    (np.array([2, 1], "uint64"), [2, 1]),
    (np.array([2, 1], ">i4"), [2, 1]),
    (np.array([2, 1, 0])[::-1], [0, 1, 2]),
    ([np.int64(2), 1], [2, 1]),
    (torch.tensor([4, 0]), [4, 0]),
    (torch.tensor([4, 0], dtype=torch.int32), [4, 0]),
    (pd.Index([4, 0]), [4, 0]),
    (pd.Series([4, 0], index=["x", "y"]), [4, 0]),
    (Sized(), [4, 1]),
    ((i for i in (2, 0)), [2, 0]),
    ([], []),
    (np.array([]), []),
    (torch.tensor([]), []),
    (MASK, [0, 3, 4]),
    (tuple(MASK), [0, 3, 4]),
    (np.array(MASK), [0, 3, 4]),
    (pd.Series(MASK), [0, 3, 4]),
    (pd.Series(MASK, index=np.arange(5)), [0, 3, 4]),
    (pd.Series(MASK, dtype=object), [0, 3, 4]),
    (pd.array(MASK, dtype="boolean"), [0, 3, 4]),
    (pd.Categorical(MASK), [0, 3, 4]),
    (np.array(MASK, object), [0, 3, 4]),
    ([np.True_, False, False, np.True_, True], [0, 3, 4]),
    (pd.array([4, 0], dtype="Int64"), [4, 0]),
    (pd.Series([4, 0], dtype=object), [4, 0]),
    (pd.Categorical([4, 0]), [4, 0]),
    (pd.RangeIndex(4, 1, -2), [4, 2]),
    ({4: "a", 0: "b"}.keys(), [4, 0]),
    (slice(1, 4), [1, 2, 3]),
    (slice(None, None, -2), [4, 2, 0]),
    (torch.tensor(MASK), [0, 3, 4]),
    ([False] * 5, []),
    ([True] * 5, [0, 1, 2, 3, 4]),
]


def fresh(written: Any) -> Any:
    """A generator serves once, and two tests use the table."""
    return iter([2, 0]) if hasattr(written, "send") else written


@pytest.mark.parametrize(("written", "expected"), POSITIONS)
def test_row_subset(written: Any, expected: list[int]) -> None:
    rows = row_subset(fresh(written), 5)
    assert rows is not None
    assert rows.dtype == np.int64
    assert rows.tolist() == expected


@pytest.mark.parametrize(("written", "expected"), [case for case in POSITIONS if case[1] != [3, 0, 3]])
def test_column_subset_of_positions(written: Any, expected: list[int]) -> None:
    # The default index of a Series of numbers may be one of names, too.
    names = (lambda: NAMES) if isinstance(written, pd.Series) else no_names
    columns = column_subset(fresh(written), 5, names, "f.h5ad")
    assert columns is not None
    assert columns.dtype == np.int64
    assert columns.tolist() == expected


def no_names() -> pd.Index:
    raise AssertionError("names are read though nobody asked for a name")


def test_none_is_all() -> None:
    assert row_subset(None, 5) is None
    assert column_subset(None, 5, no_names, "f.h5ad") is None


def test_a_subset_does_not_change_with_the_users_array() -> None:
    written = np.array([1, 2])
    found = row_subset(written, 5), column_subset(written, 5, no_names, "f.h5ad")
    written[:] = 0
    assert [rows.tolist() for rows in found if rows is not None] == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("written", "error", "message"),
    [
        ([0, 5], IndexError, "obs_subset holds 5; expected 0 to 4"),
        ([-1, 2], IndexError, "obs_subset holds -1; expected 0 to 4"),
        (np.array([2**63], "uint64"), IndexError, "obs_subset"),
        (MASK[:4], ValueError, "mask of length 4, but there are 5 rows"),
        ([True] * 6, ValueError, "mask of length 6, but there are 5 rows"),
        ([1.0, 2.0], TypeError, "float64"),
        ([1, None], TypeError, "object"),
        (pd.array([1, None], dtype="Int64"), TypeError, "missing value at place 1"),
        (pd.array([*MASK[:4], None], dtype="boolean"), ValueError, "mask with a missing value at place 4"),
        (pd.Series([None, *MASK[1:]], dtype=object), ValueError, "mask with a missing value at place 0"),
        (pd.Series([True, 1, 0, 0, 1], dtype=object), TypeError, "object"),
        ({0, 1}, TypeError, "is a set"),
        (frozenset([0]), TypeError, "is a set"),
        ({0: True}, TypeError, "is a dict"),
        (["a", "b"], TypeError, "get_indexer"),
        ("abc", TypeError, "the text 'abc'"),
        (b"abc", TypeError, "the text b'abc'"),
        (3, TypeError, "obs_subset"),
        ([[0, 1]], TypeError, "2 axes"),
        (np.ones((5, 1), bool), TypeError, "2 axes"),
    ],
)
def test_row_subset_that_is_refused(written: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        row_subset(written, 5)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["CD4", "CD3E"], [2, 0]),
        (("GNLY",), [4]),
        (np.array(["MS4A1", "CD8A"]), [3, 1]),
        (np.array(["MS4A1", "CD8A"], object), [3, 1]),
        (pd.Index(["CD4"]), [2]),
        (pd.Series(["CD4", "GNLY"], index=[7, 8]), [2, 4]),
        (pd.Series(["CD4", "GNLY"], dtype="string"), [2, 4]),
        (pd.Series(["CD4", "GNLY"], dtype="category"), [2, 4]),
        (pd.Series(["CD4", "GNLY"], index=["CD4", "GNLY"]), [2, 4]),
        (np.array([b"CD4", b"GNLY"]), [2, 4]),
        (np.array([b"CD4", b"GNLY"], object), [2, 4]),
        ({"CD4": 1, "GNLY": 2}.keys(), [2, 4]),
        ((name for name in ("CD4", "CD8A")), [2, 1]),
        ([-1, 0], [4, 0]),
        ([-5], [0]),
    ],
)
def test_column_subset(written: Any, expected: list[int]) -> None:
    columns = column_subset(written, 5, lambda: NAMES, "f.h5ad")
    assert columns is not None
    assert columns.dtype == np.int64
    assert columns.tolist() == expected


@pytest.mark.parametrize(
    ("written", "error", "message"),
    [
        (["CD3E", "CD8B"], KeyError, "f.h5ad has no gene 'CD8B'. Did you mean 'CD8A'"),
        (["cd3e"], KeyError, "Did you mean 'CD3E'"),
        (["XIST"], KeyError, "There are 5: 'CD3E', 'CD8A', 'CD4', 'MS4A1', 'GNLY'"),
        (["CD4", "CD4"], ValueError, "column 2 twice"),
        ([1, 1], ValueError, "column 1 twice"),
        ([1, -4], ValueError, "column 1 twice"),
        ([5], IndexError, "var_subset holds 5, but f.h5ad has 5 columns"),
        ([-6], IndexError, "var_subset holds -6, but f.h5ad has 5 columns"),
        (MASK[:3], ValueError, "mask of length 3, but there are 5 columns"),
        ("CD4", TypeError, "the text 'CD4'"),
        (["CD4", None], ValueError, "names with a missing value at place 1"),
        (pd.array(["CD4", None], dtype="string"), ValueError, "names with a missing value at place 1"),
        ({"CD4", "CD8A"}, TypeError, "is a set"),
        (slice("CD4", "GNLY"), TypeError, "a slice of names"),
        ([0.5], TypeError, "float64"),
        ([["CD4"]], TypeError, "2 axes"),
        (3, TypeError, "var_subset"),
    ],
)
def test_column_subset_that_is_refused(written: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        column_subset(written, 5, lambda: NAMES, "f.h5ad")


# A Series goes by its index. ------------------------------------------------------------------------------------------

CELLS = pd.Index(["c", "a", "2", "7", "b"])
BY_NAME = pd.Series({"2": True, "7": False, "a": True, "b": False, "c": False})


def ask_rows(written: Any, names: pd.Index) -> list[int]:
    return row_subset(written, len(names), lambda: names).tolist()


def ask_columns(written: Any, names: pd.Index) -> list[int]:
    return column_subset(written, len(names), lambda: names, "f.h5ad").tolist()


def ask_numbers(written: Any, names: pd.Index) -> list[int]:
    return np.flatnonzero(numbers_of_rows("weights", written, len(names), lambda: names)).tolist()


def ask_items(written: Any, names: pd.Index) -> list[int]:
    obs = pd.DataFrame({"n": np.arange(len(names))}, index=names)
    return [int(item["obs_n"]) for item in AnnDataset(anndata.AnnData(obs=obs, X=np.eye(len(names))))[written]]


ASKS = [ask_rows, ask_columns, ask_numbers, ask_items]


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("dtype", ["bool", "boolean", "object"])
def test_a_series_with_the_names_is_taken_by_name(ask: Any, dtype: str) -> None:
    assert ask(BY_NAME.astype(dtype), CELLS) == [1, 2]
    assert ask(BY_NAME.reindex(CELLS).astype(dtype), CELLS) == [1, 2]


@pytest.mark.parametrize("ask", ASKS)
def test_an_index_of_numbers_is_one_of_names(ask: Any) -> None:
    # What sorting or a merge leaves of a default index, and names that are digits.
    mask = pd.Series([True, False, False], index=[2, 0, 1])
    assert ask(mask, pd.Index(["0", "1", "2"])) == [2]
    with pytest.raises(ValueError, match="is a Series whose index"):
        ask(mask, pd.Index(["a", "b", "c"]))


@pytest.mark.parametrize("ask", ASKS)
def test_a_default_index_and_names_that_are_its_numbers_in_another_order(ask: Any) -> None:
    # As after adata[[3, 1, 0, 2]], where nobody gave the cells names.
    mask = pd.Series([True, False, False, False])
    with pytest.raises(ValueError, match=r"are these numbers in another order.*to_numpy\(\)"):
        ask(mask, pd.Index(["3", "1", "0", "2"]))
    assert ask(mask.to_numpy(), pd.Index(["3", "1", "0", "2"])) == [0]
    assert ask(mask.set_axis(["0", "1", "2", "3"]), pd.Index(["3", "1", "0", "2"])) == [2]
    for others in (["0", "1", "2", "3"], ["5", "1", "0", "2"], ["3", "1", "0", "1"], ["a", "b", "c", "d"]):
        assert ask(mask, pd.Index(others)) == [0]


@pytest.mark.parametrize("ask", [ask_rows, ask_numbers])
def test_masked_arrays_and_bfloat16(ask: Any) -> None:
    names = pd.Index(["a", "b", "c"])
    with pytest.raises(ValueError, match="with a missing value at place 1"):
        ask(np.ma.array([True, True, False], mask=[False, True, False]), names)
    assert ask(np.ma.array([True, False, True]), names) == [0, 2]
    assert numbers_of_rows("weights", torch.tensor([0.5, 3], dtype=torch.bfloat16), 2, no_names).tolist() == [0.5, 3]
    with pytest.raises(TypeError, match="obs_subset holds float32; expected integer positions or a boolean mask"):
        row_subset(torch.ones(3, dtype=torch.bfloat16), 3)


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    "index",
    [
        ["c", "a", "2", "7", "x"],
        [5, 6, 7, 8, 9],
        ["c", "a", "2", "7", "7"],
        pd.MultiIndex.from_product([range(5), ["a"]]),
    ],
)
def test_an_index_of_others_is_refused(ask: Any, index: Any) -> None:
    with pytest.raises(ValueError, match=r"is a Series whose index .* is not .*reindex\("):
        ask(pd.Series([True, False, True, False, True], index=index), CELLS)


def test_names_that_repeat_are_aligned_only_as_they_are() -> None:
    names = pd.Index(["a", "a", "b"])
    assert ask_rows(pd.Series([False, True, True], index=names), names) == [1, 2]
    with pytest.raises(ValueError, match="is a Series whose index"):
        ask_rows(pd.Series([False, True, True], index=["b", "a", "a"]), names)


@pytest.mark.parametrize("ask", [ask_rows, ask_columns, ask_items])
def test_numbers_of_all_names_are_no_positions(ask: Any) -> None:
    # 0 and 1 for each cell, as a mask comes back from a text file.
    with pytest.raises(ValueError, match=r"a value for each name.*astype\(bool\)"):
        ask(BY_NAME.astype(int), CELLS)
    assert ask(pd.Series([4, 0], index=["x", "y"]), CELLS) == [4, 0]


def test_numbers_of_rows_in_every_type() -> None:
    for values in ([0.5, 2], (0.5, 2), pd.array([0.5, 2], dtype="Float64"), pd.Series([0.5, 2], dtype=object)):
        found = numbers_of_rows("weights", values, 2, lambda: NAMES[:2])
        assert (found.dtype, found.tolist()) == (np.float64, [0.5, 2.0])
    with pytest.raises(ValueError, match=r"weights holds .* missing value at place 1"):
        numbers_of_rows("weights", pd.array([0.5, None], dtype="Float64"), 2, no_names)
    with pytest.raises(TypeError, match="weights is a dict"):
        numbers_of_rows("weights", {0: 0.5, 1: 1.0}, 2, no_names)


@pytest.mark.parametrize(
    "written", [pd.array([2, 0], dtype="Int64"), pd.Series([2, 0], dtype=object), pd.Index([2, 0])]
)
def test_an_order_of_a_users(written: Any) -> None:
    assert given_positions(lambda epoch: written, 0, 3).tolist() == [2, 0]
    with pytest.raises(TypeError, match="is a set"):
        given_positions(lambda epoch: set(written), 0, 3)


def test_a_name_of_several_columns_is_a_problem_only_where_it_is_asked_for() -> None:
    names = pd.Index(["A", "B", "A"])
    assert column_subset(["B"], 3, lambda: names, "f.h5ad").tolist() == [1]
    with pytest.raises(ValueError, match="'A'"):
        column_subset(["B", "A"], 3, lambda: names, "f.h5ad")


def test_names_that_are_numbers_are_names() -> None:
    assert column_subset(["7"], 2, lambda: pd.Index(["9", "7"]), "f.h5ad").tolist() == [1]


@pytest.mark.parametrize(
    ("written", "expected"),
    [([0, -1], [0, 4]), ([np.int8(-5)], [0]), (np.array([1, 1]), [1, 1]), (torch.tensor([-2]), [3]), ([], [])],
)
def test_positions(written: Any, expected: list[int]) -> None:
    assert as_positions(written, 5).tolist() == expected


@pytest.mark.parametrize(
    ("written", "error", "message"),
    [
        ([5], IndexError, "index 5 is out of range for a dataset of 5 rows"),
        ([0, -6], IndexError, "index -6 is out of range for a dataset of 5 rows"),
        ([True], TypeError, "bool"),
        ([1.0], TypeError, "float64"),
        (["1"], TypeError, "the index"),
    ],
)
def test_positions_that_are_refused(written: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_positions(written, 5)


def test_nothing_can_be_asked_of_nothing() -> None:
    assert row_subset([], 0).tolist() == []
    assert as_positions([], 0).tolist() == []
    for ask in (row_subset, as_positions):
        with pytest.raises(IndexError):
            ask([0], 0)


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(-n, n - 1)))))
def test_positions_are_those_of_numpy(case: tuple[int, list[int]]) -> None:
    n, written = case
    assert as_positions(written, n).tolist() == np.arange(n)[np.array(written, int)].tolist()


@given(st.lists(st.booleans()))
def test_masks_are_those_of_numpy(mask: list[bool]) -> None:
    rows = row_subset(np.array(mask, bool), len(mask))
    assert rows is not None
    assert rows.tolist() == np.arange(len(mask))[np.array(mask, bool)].tolist()


@pytest.mark.parametrize(
    ("name", "names", "expected"),
    [
        ("CD3e", ["CD3E", "CD8A"], "Did you mean 'CD3E'?"),
        ("CD8", ["CD8A", "CD8B", "XIST"], "Did you mean 'CD8B' or 'CD8A'?"),
        ("zzz", ["a", "b"], "There are 2: 'a', 'b'"),
        ("zzz", list("abcdefg"), "There are 7: 'a', 'b', 'c', 'd', 'e', …"),
        ("zzz", [None], "There are none."),
    ],
)
def test_near_matches(name: str, names: list[str], expected: str) -> None:
    assert near_matches(name, names) == expected


def test_unknown_names_are_key_errors_that_read_well() -> None:
    with pytest.raises(UnknownNameError) as caught:
        column_subset(["CD44"], 5, lambda: NAMES, "f.h5ad")
    assert str(caught.value) == "f.h5ad has no gene 'CD44'. Did you mean 'CD4'?"
