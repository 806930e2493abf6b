"""Which rows, which columns, which positions: tables of what users write and what it means."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from annfeed.errors import UnknownNameError
from annfeed.selection import as_positions, column_subset, near_matches, row_subset

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
    (pd.Series(MASK, index=list("edcba")), [0, 3, 4]),
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
    columns = column_subset(fresh(written), 5, no_names, "f.h5ad")
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
        ([0, 5], IndexError, "obs_subset holds 5, where 0 to 4 was expected"),
        ([-1, 2], IndexError, "obs_subset holds -1, where 0 to 4 was expected"),
        (np.array([2**63], "uint64"), IndexError, "obs_subset"),
        (MASK[:4], ValueError, "mask of length 4, but there are 5 rows"),
        ([True] * 6, ValueError, "mask of length 6, but there are 5 rows"),
        ([1.0, 2.0], TypeError, "float64"),
        ([1, None], TypeError, "object"),
        (["a", "b"], TypeError, "get_indexer"),
        ("abc", TypeError, "the text 'abc'"),
        (b"abc", TypeError, "the text b'abc'"),
        (3, TypeError, "obs_subset"),
        ([[0, 1]], TypeError, "2 axes"),
        (np.ones((5, 1), bool), TypeError, "2 axes"),
        (slice(0, 3), TypeError, "obs_subset"),
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
        ([0.5], TypeError, "float64"),
        ([["CD4"]], TypeError, "2 axes"),
        (3, TypeError, "var_subset"),
    ],
)
def test_column_subset_that_is_refused(written: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        column_subset(written, 5, lambda: NAMES, "f.h5ad")


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
