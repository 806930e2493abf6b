"""What of obs is read, and how much of it is held: only what is asked for, and codes where only labels count."""

import tracemalloc
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import write_elem

import annfeed.h5ad.file
from annfeed import AnnDataset
from annfeed.obs.labels import label_codes

N, N_COLUMNS = 300, 1500


@pytest.fixture(scope="module", params=["texts", "nullable"])
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with 1,500 obs columns and long names, as fixed texts or as pandas 3 has them: nullable."""
    path = tmp_path_factory.mktemp("wide") / f"{request.param}.h5ad"
    obs = pd.DataFrame(
        {f"c{i}": np.arange(N) + i for i in range(N_COLUMNS)} | {"kind": pd.Categorical(np.arange(N) % 3 == 0)}
    )
    obs.index = pd.Index([f"ACGTACGTACGT-{i}" for i in range(N)], name="cell")
    anndata.AnnData(sp.eye(N, 5, dtype="float32", format="csr"), obs=obs).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        names = pd.array(obs.index.tolist(), dtype="string")
        for group in ("obs", "var"):
            index = file[group].attrs["_index"]
            del file[group][index]
            array = names if group == "obs" else names[:5]
            with anndata.settings.override(allow_write_nullable_strings=True):
                write_elem(file[group], index, array if request.param == "nullable" else np.array(array, object))
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arrays that h5py reads from, each time."""
    found: list[str] = []
    reading = h5py.Dataset.__getitem__
    direct = h5py.Dataset.read_direct

    def getitem(self: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(self.name)
        return reading(self, *args, **kwargs)

    def read_direct(self: Any, *args: Any, **kwargs: Any) -> None:
        found.append(self.name)
        direct(self, *args, **kwargs)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", getitem)
    monkeypatch.setattr(h5py.Dataset, "read_direct", read_direct)
    return found


def of_obs(read: list[str]) -> set[str]:
    return {name.split("/")[2] for name in read if name.startswith("/obs/")}


@pytest.mark.parametrize("several", [False, True])
def test_opening_and_the_first_item_read_what_is_asked_for(wide: Path, read: list[str], several: bool) -> None:
    dataset = AnnDataset([wide, wide] if several else wide, obs_columns=["c7", "kind"])
    assert of_obs(read) == set()
    assert len(dataset) == N * (1 + several)
    assert dataset[1]["obs_c7"] == 8
    assert of_obs(read) == {"c7", "kind"}
    read.clear()
    next(iter(dataset.get_optimized_dataloader(batch_size=4, seed=0)))
    assert of_obs(read) == set()


@pytest.mark.parametrize("several", [False, True])
def test_labels_are_read_without_names(wide: Path, read: list[str], several: bool) -> None:
    dataset = AnnDataset([wide, wide] if several else wide, obs_columns=[])
    n = N * (1 + several)
    dataset.get_optimized_dataloader(balance="kind")
    parts = dataset.split({"train": 0.5, "test": 0.5}, stratify="kind", group_by="c0")
    column = dataset.obs_column("kind")
    assert column.name == "kind"
    assert of_obs(read) == {"kind", "c0"}
    assert column.index.equals(pd.RangeIndex(n))
    assert column.tolist() == (np.arange(n) % N % 3 == 0).tolist()
    assert parts["test"].obs_column("c0").index.equals(pd.RangeIndex(len(parts["test"])))
    chosen = dataset.subset(column.astype(bool))
    assert len(chosen) == n // 3


LONG = 60_000


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("ask", ["balance", "group_by", "stratify", "obs_column"])
def test_labels_take_few_bytes_a_row(tmp_path: Path, ask: str, several: bool) -> None:
    half = LONG // 2
    sources = []
    for number in range(1 + several):
        n = half if several else LONG
        obs = pd.DataFrame(
            {"kind": pd.Categorical([f"type {(i + number) % 30}" for i in range(n)])},
            index=[f"a name of a cell that is long {i}" for i in range(n)],
        )
        path = tmp_path / f"{number}.h5ad"
        anndata.AnnData(sp.csr_matrix((n, 2), dtype="float32"), obs=obs).write_h5ad(path)
        sources.append(path)
    dataset = AnnDataset(sources if several else sources[0], obs_columns=[], cache=0)
    tracemalloc.start()
    try:
        if ask == "obs_column":
            found: Any = dataset.obs_column("kind")
        else:
            found = dataset.reader.label_codes("kind", needed_by=ask)
        kept, peak = (bytes_ / LONG for bytes_ in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert len(found) in (2, LONG)
    # A name alone would be 80 bytes. pandas widens codes for a moment.
    assert kept < 4, kept
    assert peak < 25, peak


@pytest.mark.parametrize(
    ("values", "codes", "labels"),
    [
        (pd.Categorical(["b", None, "a", "b"], ["unused", "a", "b"]), [0, -1, 1, 0], ["b", "a"]),
        (pd.Series([True, 1, 1.0, "1", None], dtype=object), [0, 1, 2, 1, -1], ["True", "1", "1.0"]),
        (pd.Series([3, 1, 3]), [0, 1, 0], [3, 1]),
        (pd.Series(["b", "a", None], dtype="string"), [0, 1, -1], ["b", "a"]),
        (pd.Categorical([], ["a"]), [], []),
    ],
)
def test_codes_are_numbered_by_appearance(values: Any, codes: list[int], labels: list[Any]) -> None:
    column = pd.Series(values)
    found, names = label_codes(column)
    assert (found.tolist(), names) == (codes, labels)
    rows = np.arange(len(column))[::-1]
    again, names = label_codes(column, rows=rows)
    assert found.dtype == again.dtype == np.int8
    wanted, wanted_names = label_codes(column.iloc[rows])
    assert (again.tolist(), names) == (wanted.tolist(), wanted_names)


def test_an_unknown_column_is_told_with_names_like_it(wide: Path) -> None:
    with pytest.raises(KeyError, match=r"no column 'kinds'. Did you mean 'kind'") as near:
        AnnDataset(wide, obs_columns=["kinds"])
    with pytest.raises(KeyError, match=r"no column 'donor'. There are 1501: 'c0', 'c1', .*, 'c19', …") as far:
        AnnDataset([wide], obs_columns=["donor"])
    assert "inspect" not in str(near.value) + str(far.value)


@pytest.mark.parametrize("as_category", [True, False])
def test_labels_of_several_files_stay_apart(tmp_path: Path, as_category: bool) -> None:
    # To pandas True is 1, and 1 is 1.0.
    sources = []
    for number, labels in enumerate([[True, False], [1, 0], [1.0, 0.0], ["1", "0"]]):
        column = pd.Series(labels, index=["a", "b"], dtype="category" if as_category else object)
        sources.append(anndata.AnnData(np.eye(2), obs=pd.DataFrame({"label": column, "file": number})))
    for several, n_labels in ((sources, 4), (sources[:2], 2), (sources[1:3], 2), (sources[::2], 2)):
        dataset = AnnDataset(several, categories="code", obs_columns=["label"])
        batch = next(iter(dataset.get_optimized_dataloader(batch_size=9, shuffle=False)))
        codes = batch["obs_label"].tolist()
        texts = AnnDataset(several, obs_columns=["label"])[:].batch["obs_label"]
        assert [str(dataset.categories["label"][code]) for code in codes] == texts
        assert texts == [str(label) for adata in several for label in adata.obs["label"]]
        n_texts = len(set(texts))
        assert len(set(codes)) == (2 * n_labels if as_category else n_texts), (codes, texts)
        balanced = dataset.reader.label_codes("label")[0]
        assert len(set(balanced.tolist())) == len(set(codes))


def test_labels_of_one_kind_are_joined_as_before() -> None:
    parts = [
        anndata.AnnData(np.eye(2), obs=pd.DataFrame({"k": pd.Categorical(labels)}, index=["a", "b"]))
        for labels in ([True, False], [False, False])
    ]
    assert list(AnnDataset(parts, categories="code").categories["k"]) == [False, True]


@pytest.mark.parametrize("values", [pd.Categorical(["a", "b"]), ["a", "b"], [1, 2], [True, False]], ids=str)
def test_for_a_column_each_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: Any) -> None:
    paths = [tmp_path / f"{number}.h5ad" for number in range(3)]
    for path in paths:
        anndata.AnnData(np.eye(2), obs=pd.DataFrame({"kind": values}, index=["a", "b"])).write_h5ad(path)
    opened: list[str] = []
    open_to_stay = annfeed.h5ad.file.open_to_stay
    monkeypatch.setattr("annfeed.h5ad.file.open_to_stay", lambda path: opened.append(path) or open_to_stay(path))
    for several in (paths, paths[:1]):
        for read in ("labels", "batch"):
            dataset = AnnDataset(several if len(several) > 1 else several[0], obs_columns=["kind"])
            _ = dataset.reader.obs.columns
            opened.clear()
            if read == "labels":
                dataset.reader.label_codes("kind")
            else:
                dataset.reader.obs.take(np.array([0]))
            assert opened == [str(path) for path in several], read
