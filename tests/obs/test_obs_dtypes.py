"""obs as tensors and strings: dtypes, rows and names, compared with a few lines of plain pandas."""

import pickle

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.obs.expected import NAN, assert_is, assert_takes_as, expected_codes

from annfeed.obs.table import ObsTable

# Rows -----------------------------------------------------------------------------------------------------------------


ROW_ERRORS = [
    ([-1], IndexError, "row -1 is outside 0..2"),
    ([0, 3], IndexError, "row 3 is outside 0..2"),
    ([True, False, True], TypeError, "must be integers"),
    ([[0, 1]], TypeError, r"shape \(1, 2\)"),
    (1, TypeError, r"shape \(\)"),
    ([0.0], TypeError, "float64"),
]


@pytest.mark.parametrize(("rows", "error", "text"), ROW_ERRORS)
def test_rows_that_are_none(rows, error, text):
    with pytest.raises(error, match=text):
        ObsTable.from_frame(pd.DataFrame({"a": [1, 2, 3]})).take(rows)


def test_no_rows_give_empty_columns_of_the_same_dtypes():
    frame = pd.DataFrame({"i": [1], "b": [True], "f": [1.0], "t": ["a"], "m": pd.array([None], "Int8")})
    taken = ObsTable.from_frame(frame).take([])
    for name, dtype in {"i": torch.int64, "b": torch.bool, "f": torch.float32, "t": str, "m": torch.float64}.items():
        assert_is(taken[f"obs_{name}"], dtype, [])


def test_categories_must_be_str_or_code():
    with pytest.raises(ValueError, match='"str" or "code", not \'codes\''):
        ObsTable.from_frame(pd.DataFrame({"a": [1]})).take([0], categories="codes")


# Dtypes ---------------------------------------------------------------------------------------------------------------


MIXED = [1, 1.0, True, "1", None, NAN, [2], b"\xc3\xbc", np.str_("s"), pd.NaT]
DTYPES = [
    # column, dtype in a batch, all its values
    (pd.Series([True, False]), torch.bool, [True, False]),
    (pd.Series([1, -1], dtype="int8"), torch.int64, [1, -1]),
    (pd.Series([0, 255], dtype="uint8"), torch.int64, [0, 255]),
    (pd.Series([0, 2**32 - 1], dtype="uint32"), torch.int64, [0, 2**32 - 1]),
    (pd.Series([0, 2**63 - 1], dtype="uint64"), torch.int64, [0, 2**63 - 1]),
    (pd.Series([2**53 + 1], dtype="int64"), torch.int64, [2**53 + 1]),
    (pd.Series(np.array([1, 2], ">i4")), torch.int64, [1, 2]),
    (pd.Series(np.array([1.5, NAN], ">f8")), torch.float32, [1.5, NAN]),
    (pd.Series([0.1, NAN], dtype="float64"), torch.float32, [np.float32(0.1), NAN]),
    (pd.Series([0.5, NAN], dtype="float16"), torch.float32, [0.5, NAN]),
    (pd.Series(np.array([0.5], np.longdouble)), torch.float32, [0.5]),
    (pd.Series([1, 2], dtype="Int64"), torch.int64, [1, 2]),
    (pd.Series([2**53 + 1], dtype="Int64"), torch.int64, [2**53 + 1]),
    (pd.Series([1, None], dtype="Int16"), torch.float64, [1, NAN]),
    (pd.Series([1, None], dtype="UInt64"), torch.float64, [1, NAN]),
    (pd.Series([True, False], dtype="boolean"), torch.bool, [True, False]),
    (pd.Series([True, None], dtype="boolean"), torch.float64, [1, NAN]),
    (pd.Series([0.5, None], dtype="Float32"), torch.float32, [0.5, NAN]),
    (pd.Series(pd.arrays.SparseArray([0, 0, 3])), torch.int64, [0, 0, 3]),
    (pd.Series(pd.arrays.SparseArray([0.0, NAN])), torch.float32, [0, NAN]),
    (pd.Series(["a", None, NAN, "nan", ""]), str, ["a", "nan", "nan", "nan", ""]),
    (pd.Series([None, None], dtype=object), str, ["nan", "nan"]),
    (pd.Series(["a", None], dtype="string"), str, ["a", "nan"]),
    (pd.Series(["b", None, "a"], dtype=pd.CategoricalDtype(["a", "b"])), str, ["b", "nan", "a"]),
    (pd.Series([2, 1, None], dtype=pd.CategoricalDtype([1, 2])), str, ["2", "1", "nan"]),
    (pd.Series([2.0, 0.5], dtype=pd.CategoricalDtype([0.5, 2.0])), str, ["2.0", "0.5"]),
    (pd.Series([True, False], dtype=pd.CategoricalDtype([True, False])), str, ["True", "False"]),
    (pd.Series([None, None], dtype=pd.CategoricalDtype(["a"])), str, ["nan", "nan"]),
    (pd.Series(pd.to_datetime(["2020-01-02", None])), str, ["2020-01-02 00:00:00", "nan"]),
    (pd.Series(pd.to_timedelta(["1 days", None])), str, ["1 days 00:00:00", "nan"]),
    (pd.Series([1 + 2j]), str, ["(1+2j)"]),
    (pd.Series([pd.Interval(0, 1), None]), str, ["(0.0, 1.0]", "nan"]),
    (pd.Series(MIXED, dtype=object), str, ["1", "1.0", "True", "1", "nan", "nan", "[2]", "ü", "s", "nan"]),
]


@pytest.mark.parametrize(("series", "dtype", "values"), DTYPES, ids=[f"{d[0].dtype}-{i}" for i, d in enumerate(DTYPES)])
def test_table_of_dtypes(series, dtype, values):
    table = ObsTable.from_frame(pd.DataFrame({"c": series}))
    assert_is(table.take(range(len(values)))["obs_c"], dtype, values)
    # A batch has the dtype of the column, not of its rows.
    for row in range(len(values)):
        assert_is(table.take([row, row])["obs_c"], dtype, [values[row]] * 2)


@pytest.mark.parametrize("dtype", ["uint64", "UInt64"])
def test_an_integer_that_int64_cannot_hold_is_an_error(dtype):
    table = ObsTable.from_frame(pd.DataFrame({"big": pd.Series([2**63], dtype=dtype)}))
    with pytest.raises(ValueError, match="column 'big' has values above"):
        table.take([0])


def test_floats_follow_torch_default_dtype_at_the_time_of_the_batch():
    table = ObsTable.from_frame(pd.DataFrame({"f": [0.1]}))
    assert table.take([0])["obs_f"].dtype is torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert_is(table.take([0])["obs_f"], torch.float64, [0.1])
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("series", "codes", "categories"),
    [
        (pd.Series(["b", "a", None, "b"]), [1, 0, -1, 1], ["a", "b"]),
        (pd.Series(["b", "nan", None], dtype="string"), [0, 1, -1], ["b", "nan"]),
        (pd.Series(["é", "z", "a"]), [2, 1, 0], ["a", "z", "é"]),
        (pd.Series([3, None, 1], dtype=pd.CategoricalDtype([3, 2, 1])), [0, -1, 2], [3, 2, 1]),
        (pd.Series(pd.to_datetime(["2021", None, "2020"])), [1, -1, 0], ["2020-01-01 00:00:00", "2021-01-01 00:00:00"]),
        (pd.Series([1, "1", True], dtype=object), [0, 0, 1], ["1", "True"]),
        (pd.Series([None], dtype=object), [-1], []),
    ],
)
def test_table_of_codes(series, codes, categories):
    table = ObsTable.from_frame(pd.DataFrame({"c": series, "n": 1}))
    assert_is(table.take(range(len(codes)), categories="code")["obs_c"], torch.int64, codes)
    assert {name: list(index) for name, index in table.categories.items()} == {"c": categories}


def test_many_categories_keep_their_codes():
    names = [f"c{i}" for i in range(40_000)]  # more than int16 holds
    frame = pd.DataFrame({"cat": pd.Categorical(names, categories=names[::-1]), "text": names})
    taken = ObsTable.from_frame(frame).take([0, 39_999], categories="code")
    assert taken["obs_cat"].tolist() == [39_999, 0]
    assert taken["obs_text"].tolist() == [sorted(names).index("c0"), sorted(names).index("c39999")]


def optional(values):
    return st.none() | values


def some_columns(n):
    def column(values, dtype):
        return st.lists(values, min_size=n, max_size=n).map(lambda v: pd.Series(v, dtype=dtype))

    text = st.text(max_size=3)
    integers = [
        (t, np.iinfo(t.lower())) for t in ("int8", "int32", "int64", "uint8", "uint16", "Int8", "Int64", "UInt32")
    ]
    return st.one_of(
        column(st.booleans(), "bool"),
        column(optional(st.booleans()), "boolean"),
        *(
            column((optional if t[0].isupper() else lambda s: s)(st.integers(int(i.min), int(i.max))), t)
            for t, i in integers
        ),
        column(st.floats(width=32), "float32"),
        column(st.floats(width=32), "float64"),
        column(optional(text), object),
        column(optional(text), "string"),
        column(st.sampled_from(["a", "b", None]), pd.CategoricalDtype(["c", "b", "a"])),
        column(st.sampled_from([1, 5, None]), pd.CategoricalDtype([5, 3, 1], ordered=True)),
        column(st.sampled_from([0.5, None]), pd.CategoricalDtype([0.5, 1.5])),
        column(optional(st.datetimes(pd.Timestamp(1990, 1, 1), pd.Timestamp(2050, 1, 1))), "datetime64[ns]"),
        column(st.sampled_from([1, 1.0, True, "x", None, 2.5]), object),
    )


@st.composite
def frames_and_rows(draw):
    n = draw(st.integers(1, 8))
    frame = pd.DataFrame({f"c{i}": draw(some_columns(n)) for i in range(draw(st.integers(1, 4)))})
    return frame, draw(st.lists(st.integers(0, n - 1), max_size=12))


@given(frames_and_rows())
def test_any_frame_any_rows(frame_and_rows):
    frame, rows = frame_and_rows
    table = ObsTable.from_frame(frame)
    assert_takes_as(table, frame, rows)
    coded, categories = table.take(rows, categories="code"), table.categories
    for name in frame:
        if (codes_and_names := expected_codes(frame[name])) is not None:
            assert_is(coded[f"obs_{name}"], torch.int64, [codes_and_names[0][r] for r in rows])
            assert list(categories[name]) == codes_and_names[1]
    again = pickle.loads(pickle.dumps(table))
    assert_takes_as(again, frame, rows)


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/b", "größe", "", " ", "obs_x", "细胞", 3, ("a", 1), 1.5])
def test_odd_column_names(name):
    table = ObsTable.from_frame(pd.DataFrame([[7]], columns=pd.Index([name], tupleize_cols=False)), columns=[name])
    assert table.take([0])[f"obs_{name}"].tolist() == [7]


def test_a_slash_in_a_column_name_of_a_file(tmp_path):
    anndata.AnnData(obs=pd.DataFrame({"ab": [1, 2]}, index=["x", "y"])).write_h5ad(tmp_path / "slash.h5ad")
    # What anndata wrote of a column "a/b" before 0.13, which refuses to.
    with h5py.File(tmp_path / "slash.h5ad", "a") as file:
        file.move("obs/ab", "obs/a/b")
        file["obs"].attrs["column-order"] = ["a/b"]
    assert ObsTable.from_file(tmp_path / "slash.h5ad").take([1])["obs_a/b"].tolist() == [2]


@pytest.mark.parametrize("names", [["a", "a"], [1, "1"]])
def test_two_columns_for_one_key_are_an_error(names):
    frame = pd.DataFrame([[1, 2, 3]], columns=[*names, "other"])
    with pytest.raises(ValueError, match="two columns for 'obs_"):
        ObsTable.from_frame(frame)
    with pytest.raises(ValueError, match="two columns"):
        ObsTable.from_frame(frame, columns=names)
    assert ObsTable.from_frame(frame, columns=["other"]).take([0])["obs_other"].tolist() == [3]


def test_what_is_no_frame_is_refused():
    with pytest.raises(TypeError, match="must be a pandas DataFrame, not a dict"):
        ObsTable.from_frame({"a": [1]})
