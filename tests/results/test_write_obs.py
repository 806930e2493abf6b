"""Labels and numbers that a model made of the rows, written back into obs as anndata itself would write them."""

import os
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from tests.results.test_inference import contents
from tests.support.toys import rows_of, toy

import annfeed
from annfeed import AnnDataset, FormatError, UnsupportedError, write_obs
from annfeed.results.h5ad import REPLACED, UNFINISHED

N = 40
ORDER = np.random.default_rng(3).permutation(N)
NAMES = np.array(["T", "B", "NK"])
CODES = np.random.default_rng(4).integers(0, 3, N)
TEXTS = NAMES[CODES]
NUMBERS = np.random.default_rng(5).normal(size=N)
SOME = [*range(0, N, 2)]


def batches(values: Any, size: int = 7) -> Any:
    """Results as a loop makes them, in another order than that of the rows."""
    for start in range(0, N, size):
        rows = ORDER[start : start + size]
        yield torch.from_numpy(rows), values[torch.from_numpy(rows) if isinstance(values, torch.Tensor) else rows]


def masked(values: Any, missing: Any, dtype: str) -> Any:
    array = pd.array(values, dtype=dtype)
    array[missing] = pd.NA
    return array


#: results, options, and the column that a user would have given to anndata.
WRITTEN = {
    "text": (TEXTS, {}, list(TEXTS)),
    "text of pandas": (pd.Series(TEXTS), {}, list(TEXTS)),
    "text in a list": (TEXTS.tolist(), {}, list(TEXTS)),
    "text in batches": (lambda: batches(TEXTS), {}, list(TEXTS)),
    "text that is all different": ([f"cell type {i}" for i in range(N)], {}, [f"cell type {i}" for i in range(N)]),
    "natural order": ([f"c{i % 12}" for i in range(N)], {}, [f"c{i % 12}" for i in range(N)]),
    "text, some missing": ([None, *TEXTS[1:]], {}, [None, *TEXTS[1:]]),
    "text of some rows": (TEXTS[SOME], {"index": SOME}, [TEXTS[i] if i % 2 == 0 else None for i in range(N)]),
    "codes": (CODES, {"categories": NAMES}, pd.Categorical.from_codes(CODES, NAMES)),
    "codes of torch in batches": (
        lambda: batches(torch.from_numpy(CODES)),
        {"categories": pd.Index(NAMES)},
        pd.Categorical.from_codes(CODES, NAMES),
    ),
    "codes, some missing": (
        np.where(CODES == 2, -1, CODES),
        {"categories": ["T", "B"]},
        pd.Categorical.from_codes(np.where(CODES == 2, -1, CODES), ["T", "B"]),
    ),
    "codes of some rows": (
        CODES[SOME],
        {"categories": NAMES, "index": SOME},
        pd.Categorical.from_codes(np.where(np.arange(N) % 2, -1, CODES), NAMES),
    ),
    "codes of numbers": (CODES, {"categories": [10, 20, 30]}, pd.Categorical.from_codes(CODES, [10, 20, 30])),
    "text with categories": (TEXTS, {"categories": [*NAMES, "?"]}, pd.Categorical(TEXTS, [*NAMES, "?"])),
    "an ordered categorical": (
        pd.Categorical(TEXTS, ["T", "NK", "B"], ordered=True),
        {},
        pd.Categorical(TEXTS, ["T", "NK", "B"], ordered=True),
    ),
    "categoricals in batches": (
        lambda: ((r, pd.Categorical(v, ["T", "NK", "B"])) for r, v in batches(TEXTS)),
        {},
        pd.Categorical(TEXTS, ["T", "NK", "B"]),
    ),
    "categoricals that differ": (
        lambda: ((r, pd.Categorical(v)) for r, v in batches(TEXTS, 2)),
        {},
        pd.Categorical(TEXTS, ["B", "NK", "T"]),
    ),
    "labels of some rows, others named": (
        TEXTS[SOME],
        {"index": SOME, "fill": "unknown"},
        pd.Categorical(np.where(np.arange(N) % 2, "unknown", TEXTS), ["B", "NK", "T", "unknown"]),
    ),
    "integers": (CODES.astype(np.int16), {}, CODES.astype(np.int16)),
    "integers of some rows": (CODES[SOME], {"index": SOME, "fill": -9}, np.where(np.arange(N) % 2, -9, CODES)),
    "[n, 1]": (CODES[:, None], {}, CODES),
    "bools": (CODES == 1, {}, CODES == 1),
    "floats": (torch.from_numpy(NUMBERS), {}, NUMBERS),
    "half precision": (torch.from_numpy(NUMBERS).bfloat16(), {}, torch.from_numpy(NUMBERS).bfloat16().float().numpy()),
    "floats of some rows": (NUMBERS[SOME], {"index": SOME}, np.where(np.arange(N) % 2, np.nan, NUMBERS)),
    "nullable integers": (masked(CODES, SOME, "Int32"), {}, masked(CODES, SOME, "Int32")),
    "nullable bools": (masked(CODES == 1, SOME, "boolean"), {}, masked(CODES == 1, SOME, "boolean")),
    "nullable integers of some rows": (
        masked(CODES, [], "Int64")[SOME],
        {"index": SOME},
        masked(CODES, range(1, N, 2), "Int64"),
    ),
    "bools and None": ([None, *(CODES == 1).tolist()[1:]], {}, masked(CODES == 1, [0], "boolean")),
    "integers, then nullable ones": (
        lambda: [(range(20), CODES[:20]), (range(20, N), masked(CODES[20:], [0], "Int64"))],
        {},
        masked(CODES, [20], "Int64"),
    ),
    "dicts": (lambda: ({"index": r, "p": v} for r, v in batches(NUMBERS)), {}, NUMBERS),
    "one dict with more in it": ({"index": ORDER, "new": NUMBERS[ORDER], "loss": np.zeros(N)}, {}, NUMBERS),
    "padding": (
        lambda: [
            {"index": range(N), "p": NUMBERS, "is_padding": torch.zeros(N, dtype=torch.bool)},
            {"index": [3, 4], "p": np.array([9.0, 9.0]), "is_padding": torch.tensor([True, True])},
        ],
        {},
        NUMBERS,
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_is_what_anndata_writes(path: Path, tmp_path: Path, name: str) -> None:
    results, options, column = WRITTEN[name]
    # The oracle: the same column given to anndata, written and read back.
    expected = toy()
    expected.obs["new"] = pd.Series(column, index=expected.obs_names)
    expected.write_h5ad(tmp_path / "expected.h5ad")
    write_obs(path, "new", results() if callable(results) else results, **options)
    found = anndata.read_h5ad(path)
    pd.testing.assert_frame_equal(found.obs, anndata.read_h5ad(tmp_path / "expected.h5ad").obs)
    with h5py.File(path) as ours, h5py.File(tmp_path / "expected.h5ad") as theirs:
        assert list(ours["obs"].attrs["column-order"]) == list(theirs["obs"].attrs["column-order"])
        kind = theirs["obs/new"].attrs["encoding-type"]
        # Text as plain strings: newer versions of anndata write it with a mask of what is missing.
        assert ours["obs/new"].attrs["encoding-type"] == ("string-array" if "string" in kind else kind)
    # And in memory.
    adata = toy()
    write_obs(adata, "new", results() if callable(results) else results, **options)
    adata.write_h5ad(tmp_path / "memory.h5ad")
    pd.testing.assert_frame_equal(anndata.read_h5ad(tmp_path / "memory.h5ad").obs, found.obs)


def test_all_else_in_the_file_is_as_it_was(path: Path) -> None:
    before = contents(path)
    write_obs(path, "new", TEXTS)
    after = contents(path)
    assert {name: value for name, value in after.items() if not name.startswith("obs/new")} == before


REFUSED: dict[str, tuple[Any, dict, type[Exception], str]] = {
    "integers of some rows": (
        CODES[SOME],
        {"index": SOME},
        ValueError,
        "20 of 40 rows have no result, and int64 has no",
    ),
    "bools of some rows": (CODES[SOME] == 1, {"index": SOME}, ValueError, "and bool has no missing values"),
    "a fill that does not fit": (CODES[SOME], {"index": SOME, "fill": 0.5}, ValueError, "int64 cannot hold"),
    "a fill of another kind": (CODES[SOME], {"index": SOME, "fill": "T"}, TypeError, "fill is 'T'; expected a number"),
    "a fill that is no category": (
        CODES[SOME],
        {"index": SOME, "fill": "?", "categories": NAMES},
        ValueError,
        r"fill is '\?', which is not among the categories; expected one of 'T', 'B', 'NK'",
    ),
    "too few": (CODES[:9], {}, ValueError, "9 results for 40 rows"),
    "a code too high": (CODES, {"categories": ["T", "B"]}, ValueError, "the code 2; expected 0 to 1, or -1"),
    "a code too low": (CODES - 2, {"categories": NAMES}, ValueError, "the code -2"),
    "an unknown label": (TEXTS, {"categories": ["T", "B"]}, ValueError, "the label 'NK', which is not among"),
    "fractions as codes": (NUMBERS, {"categories": NAMES}, TypeError, "dtype float64; expected codes"),
    "bools as codes": (CODES == 1, {"categories": NAMES}, TypeError, "dtype bool; expected codes"),
    "categories that are a text": (CODES, {"categories": "TBN"}, TypeError, "categories is the text 'TBN'"),
    "scores": (np.zeros((N, 3)), {}, ValueError, r"shape \(40, 3\); expected one value a row"),
    "mixed": (["T", 1, *TEXTS[2:]], {}, TypeError, "mixed"),
    "mixed batches": ([([0], ["T"]), ([1], [1])], {}, TypeError, "result 1 holds numbers, those before hold labels"),
    "dates": (pd.Series(pd.date_range("2020", periods=N)), {}, TypeError, "dtype datetime64"),
    "bytes": ([b"T"] * N, {}, TypeError, "bytes"),
    "a text": ("T", {}, TypeError, "results is a str"),
    "two labels of a row": ([(range(N), TEXTS), ([3], ["?"])], {}, ValueError, "row 3 has two different results"),
    "nothing": ([], {}, ValueError, "results is empty"),
    "a row too many": ([([N], ["T"])], {}, IndexError, "result for row 40"),
    "a dict without index": ([{"p": CODES}], {}, TypeError, "dict with 'p'; expected 'index'"),
    "a dict of several": ([{"index": [0], "p": [1], "q": [2]}], {}, TypeError, "under the key 'new'"),
    "another index": (
        pd.Series(CODES, index=ORDER),
        {},
        ValueError,
        "the index of results has .*, which is no obs name; expected obs names, or 0, 1, 2",
    ),
    "names that disagree with rows": (
        pd.Series(CODES, index=[f"cell{i}" for i in range(N)]),
        {"index": ORDER},
        ValueError,
        "expected obs names that agree with the row numbers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_changes_nothing(path: Path, name: str) -> None:
    results, options, error, message = REFUSED[name]
    before = path.read_bytes()
    adata = toy()
    for target in (path, adata):
        with pytest.raises(error, match=message):
            write_obs(target, "new", results, **options)
    assert path.read_bytes() == before
    assert "new" not in adata.obs


def test_a_series_goes_to_the_rows_that_its_index_names(path: Path) -> None:
    # Not by position: that is what pandas users rely on.
    named = pd.Series(NUMBERS[ORDER], index=[f"cell{i}" for i in ORDER])
    write_obs(path, "new", named)
    write_obs(path, "part", named.iloc[:10])
    obs = anndata.read_h5ad(path).obs
    np.testing.assert_array_equal(obs["new"], NUMBERS)
    pd.testing.assert_series_equal(
        obs["part"].dropna(), named.iloc[:10].loc[obs.index[np.sort(ORDER[:10])]], check_names=False
    )


@pytest.mark.parametrize("column", ["", "a/b", ".hidden", 3, "_index", "__categories"])
def test_names_that_are_refused(path: Path, column: Any) -> None:
    with pytest.raises(ValueError, match="column is"):
        write_obs(path, column, TEXTS)


def test_a_column_that_is_there(path: Path) -> None:
    before = path.read_bytes()
    for target in (toy(), path):
        with pytest.raises(ValueError, match=r"obs.*label.* is there already; pass overwrite=True"):
            write_obs(target, "label", TEXTS)
    assert path.read_bytes() == before
    write_obs(path, "label", TEXTS, overwrite=True)
    obs = anndata.read_h5ad(path).obs
    assert list(obs.columns) == list(toy().obs.columns)  # in its place
    assert obs["label"].tolist() == list(TEXTS)


def test_the_obs_names_are_not_overwritten(tmp_path: Path) -> None:
    adata = toy()
    adata.obs.index.name = "barcode"
    adata.write_h5ad(tmp_path / "named.h5ad")
    with pytest.raises(ValueError, match="'barcode' holds the obs names"):
        write_obs(tmp_path / "named.h5ad", "barcode", TEXTS, overwrite=True)


def test_many_columns(tmp_path: Path) -> None:
    adata = toy()
    adata.obs[[f"column {i}" for i in range(300)]] = 0
    adata.write_h5ad(tmp_path / "wide.h5ad")
    write_obs(tmp_path / "wide.h5ad", "new", TEXTS)
    assert anndata.read_h5ad(tmp_path / "wide.h5ad").obs["new"].tolist() == list(TEXTS)


def test_an_obs_with_no_columns(tmp_path: Path) -> None:
    anndata.AnnData(np.eye(3, dtype=np.float32)).write_h5ad(tmp_path / "bare.h5ad")
    write_obs(tmp_path / "bare.h5ad", "new", ["a", "b", "a"])
    assert anndata.read_h5ad(tmp_path / "bare.h5ad").obs["new"].tolist() == ["a", "b", "a"]


def test_the_obs_of_anndata_0_7(path: Path) -> None:
    """Categoricals of version 0.1 lie under ``__categories``."""
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        obs.attrs["encoding-version"] = "0.1.0"
        categories, codes = obs["label/categories"][()], obs["label/codes"][()]
        del obs["label"]
        obs["__categories/label"] = categories
        obs["label"] = codes
        obs["label"].attrs["categories"] = obs["__categories/label"].ref
    labels = anndata.read_h5ad(path).obs["label"].tolist()
    write_obs(path, "new", CODES, categories=NAMES)
    obs = anndata.read_h5ad(path).obs
    assert (obs["new"].tolist(), obs["label"].tolist()) == (list(TEXTS), labels)
    assert AnnDataset(path, obs_columns=["new"])[2]["obs_new"] == TEXTS[2]


def test_forms_to_which_nothing_can_be_added(path: Path, tmp_path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["obs"]
        file["obs"] = np.zeros(N, dtype=[("index", "S8"), ("age", "i8")])
    before = path.read_bytes()
    with pytest.raises(UnsupportedError, match=r"'obs' is in the form of before anndata 0\.7.*write it again"):
        write_obs(path, "new", TEXTS)
    assert path.read_bytes() == before
    with h5py.File(tmp_path / "empty.h5ad", "w"):
        pass
    with pytest.raises(FormatError, match="no 'obs'"):
        write_obs(tmp_path / "empty.h5ad", "new", TEXTS)


# --- one type for all batches ----------------------------------------------------------------------------------------

KINDS = ([True, False], [1, 2], [0.5, 1.0], ["1", "2"])
MASKED = np.ma.array([1, 7, 3], mask=[False, True, False])


@pytest.mark.parametrize("form", ["memory", "file"])
@pytest.mark.parametrize(
    ("results", "dtype", "wanted"),
    [
        ([1, None, 3], "Int64", [1, pd.NA, 3]),
        ([1, pd.NA, 3], "Int64", [1, pd.NA, 3]),
        ((True, None, False), "boolean", [True, pd.NA, False]),
        ([([0, 1], [1, None]), ([2], [3])], "Int64", [1, pd.NA, 3]),
        ([([2], [3]), ([0, 1], [1, None])], "Int64", [1, pd.NA, 3]),
        (MASKED, "Int64", [1, pd.NA, 3]),
        ([1.5, None, 3], "float64", [1.5, np.nan, 3]),
        ([1.5, pd.NA, 3], "float64", [1.5, np.nan, 3]),
        ([([0, 1], pd.array([1, None], dtype="Int64")), ([2], np.array([2.5]))], "float64", [1, np.nan, 2.5]),
        ([([2], np.array([2.5])), ([0, 1], pd.array([1, None], dtype="Int64"))], "float64", [1, np.nan, 2.5]),
        ([([0], np.array([1.0])), ([2], pd.array([7], dtype="Int64"))], "float64", [1, np.nan, 7]),
    ],
)
def test_numbers_of_which_some_are_missing(tmp_path: Path, form: str, results: Any, dtype: str, wanted: Any) -> None:
    target = adata = anndata.AnnData(np.eye(3))
    if form == "file":
        target = os.fsencode(tmp_path / "a.h5ad")
        adata.write_h5ad(tmp_path / "a.h5ad")
    write_obs(target, "new", results)
    column = (adata if form == "memory" else anndata.read_h5ad(tmp_path / "a.h5ad")).obs["new"]
    pd.testing.assert_series_equal(column, pd.Series(wanted, index=column.index, dtype=dtype, name="new"))


@pytest.mark.parametrize("labels", KINDS)
@pytest.mark.parametrize("others", KINDS)
def test_labels_of_two_kinds(labels: Any, others: Any) -> None:
    adata = anndata.AnnData(np.eye(3))
    batches = [([0, 1], pd.Categorical(labels)), ([2], pd.Categorical(others[1:], categories=others))]
    if labels is others:
        write_obs(adata, "new", batches)
        assert adata.obs["new"].tolist() == [*labels, others[1]]
        return
    with pytest.raises(TypeError, match=r"result 1 has the label .*, those before are of .*: all must be of one kind"):
        write_obs(adata, "new", batches)


@pytest.mark.parametrize("labels", [pd.date_range("2020", periods=3), [("a", 1), ("b", 2)], pd.interval_range(0, 3)])
def test_labels_that_a_file_cannot_hold_are_refused_at_once(path: Path, labels: Any) -> None:
    before, taken = contents(path), []

    def results() -> Any:
        for i in range(N):
            taken.append(i)
            yield [i], pd.Categorical([labels[0]], categories=labels)

    with pytest.raises(TypeError, match=r"result 0 has the label .* where a file can hold labels of text, integer"):
        write_obs(path, "new", results())
    assert taken == [0]
    with pytest.raises(TypeError, match=r"categories has the label .* where a file can hold"):
        write_obs(path, "new", [([0], [0])], categories=pd.CategoricalDtype(labels))
    assert contents(path) == before
    adata = anndata.AnnData(np.eye(3))
    write_obs(adata, "new", pd.Categorical([labels[0]] * 3))
    assert adata.obs["new"].tolist() == [labels[0]] * 3


def test_a_default_index_beside_obs_names_that_are_its_numbers_in_another_order() -> None:
    adata = anndata.AnnData(np.eye(4))[[3, 1, 0, 2]].copy()
    scores = pd.Series([0.5, 1.5, 2.5, 3.5])
    for write, results in ((write_obs, scores), (annfeed.write_obsm, pd.DataFrame({"score": scores}))):
        with pytest.raises(ValueError, match="obs names are these numbers in another order"):
            write(adata, "new", results)
    write_obs(adata, "by_position", scores.to_numpy())
    write_obs(adata, "by_name", scores.set_axis(scores.index.astype(str)))
    assert adata.obs["by_position"].tolist() == [0.5, 1.5, 2.5, 3.5]
    assert adata.obs["by_name"].tolist() == [3.5, 1.5, 0.5, 2.5]


def test_masked_values_are_no_results_of_obsm() -> None:
    adata = anndata.AnnData(np.eye(3))
    for results in (MASKED, [([0, 1, 2], MASKED)]):
        with pytest.raises(ValueError, match="is an array with masked values"):
            annfeed.write_obsm(adata, "new", results)
    annfeed.write_obsm(adata, "new", MASKED.filled(0))
    assert adata.obsm["new"].ravel().tolist() == [1, 0, 3]


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["label", "new"])
@pytest.mark.parametrize("when", ["before", "after", "order"])
def test_a_write_that_fails_leaves_what_was_there(
    path: Path, column: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import anndata.io

    before = contents(path)
    write = anndata.io.write_elem

    def fail(group: Any, name: str, value: Any) -> None:
        if when == "after":
            write(group, name, value)
        raise RuntimeError("no more")

    if when == "order":
        monkeypatch.setattr("annfeed.results.h5ad._add_to_order", lambda *_: fail(None, "", None))
    else:
        monkeypatch.setattr(anndata.io, "write_elem", fail)
    with pytest.raises(OSError, match=rf"obs/{column}' could not be written \(no more\).*as it was"):
        write_obs(path, column, TEXTS, overwrite=True)
    monkeypatch.undo()
    assert contents(path) == before
    write_obs(path, column, TEXTS, overwrite=True)
    assert anndata.read_h5ad(path).obs[column].tolist() == list(TEXTS)


def test_what_a_killed_process_left_is_cleared(path: Path) -> None:
    labels = anndata.read_h5ad(path).obs["label"]
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        obs[UNFINISHED] = np.zeros(3)
        obs.move("label", f"{REPLACED}label")  # it was about to get a new value
        obs[f"{REPLACED}row"] = np.zeros(3)  # it has its new value
    write_obs(path, "new", TEXTS)
    obs = anndata.read_h5ad(path).obs
    pd.testing.assert_series_equal(obs["label"], labels)
    assert obs["row"].tolist() == list(range(N))
    with h5py.File(path) as file:
        assert [name for name in file["obs"] if name.startswith(".annfeed")] == []


# --- open datasets and AnnData objects -------------------------------------------------------------------------------


def test_the_file_of_a_backed_anndata_stays(path: Path) -> None:
    adata = anndata.read_h5ad(path, backed="r")
    write_obs(adata, "new", TEXTS)
    assert adata.obs["new"].tolist() == list(TEXTS)
    adata.file.close()
    assert "new" not in anndata.read_h5ad(path).obs


def test_predicted_labels_of_part_of_the_rows(path: Path) -> None:
    dataset = AnnDataset(path, obs_subset=[17, 3, 39], obs_columns=["label"], categories="code")
    results = [(batch["index"], batch["obs_label"]) for batch in dataset.predict_loader(2)]
    write_obs(path, "predicted", results, categories=dataset.categories["label"])
    obs = anndata.read_h5ad(path).obs
    assert obs["predicted"].iloc[[17, 3, 39]].tolist() == obs["label"].iloc[[17, 3, 39]].tolist()
    assert obs["predicted"].notna().sum() == 3
    assert list(obs["predicted"].cat.categories) == list(obs["label"].cat.categories)


def test_an_open_dataset_reads_on(path: Path) -> None:
    """A new column is for who opens the file anew; one that is replaced is the next epoch's."""
    dataset = AnnDataset(path, window=8)
    loader = dataset.get_optimized_dataloader(batch_size=8, shuffle=False)
    before = list(loader)
    write_obs(path, "new", TEXTS)
    batches = list(loader)
    assert [list(batch) for batch in batches] == [list(batch) for batch in before]
    assert [batch["obs_label"] for batch in batches] == [batch["obs_label"] for batch in before]
    write_obs(path, "label", TEXTS, overwrite=True)
    batches = list(loader)
    assert [text for batch in batches for text in batch["obs_label"]] == list(TEXTS)
    assert rows_of(batches) == [list(range(i, i + 8)) for i in range(0, N, 8)]
    again = AnnDataset(path, obs_columns=["new", "label"])
    assert again[7]["obs_new"] == again[7]["obs_label"] == TEXTS[7]


def test_it_is_public() -> None:
    assert {"write_obs", "write_obsm", "check_writable"} <= set(annfeed.__all__)
