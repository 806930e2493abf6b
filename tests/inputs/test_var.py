"""`AnnDataset.var`, and genes chosen by a column of it (`var_column`), compared with anndata."""

import pickle
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from tests.support.toys import FORMS, dense, hand_over, write

from annfeed import AnnDataset, StaleDataError, UnknownNameError
from annfeed.inputs.source_var import SourceVar

IDS = [f"ENSG{i}" for i in range(6)]
SYMBOLS = ["CD3E", "MS4A1", "TBCE", "TBCE", "NKG7", None]


def cells(genes: list[int] | None = None, n: int = 8, first: int = 0) -> anndata.AnnData:
    """Cells with genes of the ids of CELLxGENE's files, whose symbols repeat, or are missing."""
    genes = list(range(6)) if genes is None else genes
    x = np.arange(first, first + n * len(genes), dtype=np.float32).reshape(n, len(genes)) + 1
    var = pd.DataFrame(
        {
            "feature_name": pd.Categorical([SYMBOLS[i] for i in genes]),
            "length": np.array(genes) * 10,
            "kept": [i % 2 == 0 for i in genes],
        },
        index=[IDS[i] for i in genes],
    )
    adata = anndata.AnnData(x, var=var, layers={"twice": x * 2})
    raw = anndata.AnnData(np.hstack([x, x]), var=pd.concat([var, var.set_axis(var.index + "b")]))
    raw.var["feature_name"] = [f"raw {i}" for i in range(2 * len(genes))]
    adata.raw = raw
    return adata


def by_symbol(adata: anndata.AnnData, symbols: list[str]) -> Any:
    """The genes of these symbols, by anndata's own indexing."""
    names = [adata.var_names[adata.var["feature_name"] == symbol].item() for symbol in symbols]
    return adata[:, names]


def view_of(adata: anndata.AnnData) -> anndata.AnnData:
    return adata[::-1, [4, 0, 1, 5]]


CHANGES: list[Callable[[anndata.AnnData], anndata.AnnData]] = [lambda adata: adata, view_of]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("form", FORMS)
def test_var_is_that_of_anndata(form: str, change: Callable[..., Any], tmp_path: Path) -> None:
    source = hand_over(cells(), form, tmp_path)
    if form == "path":
        write(cells() if change is not view_of else view_of(cells()).copy(), source)
    expected = change(cells())
    given = source if form == "path" else change(source)
    assert (AnnDataset(given).n_obs, AnnDataset(given).n_vars) == expected.shape
    pd.testing.assert_frame_equal(AnnDataset(given).var, pd.DataFrame(expected.var))
    chosen = AnnDataset(given, var_subset=[2, 0], elem="layers/twice")
    pd.testing.assert_frame_equal(chosen.var, pd.DataFrame(expected.var).iloc[[2, 0]])
    assert chosen.var.index.equals(chosen.var_names)
    raw = AnnDataset(given, elem="raw/X")
    pd.testing.assert_frame_equal(raw.var[["feature_name", "length"]], expected.raw.var[["feature_name", "length"]])


def test_var_is_that_of_now(tmp_path: Path) -> None:
    adata = cells()
    dataset = AnnDataset(adata, var_subset=["ENSG4"])
    adata.var["new"] = range(6)
    assert dataset.var["new"].tolist() == [4]
    dataset.var["new"] = 0  # a frame of its own
    assert adata.var["new"].tolist() == [*range(6)]
    path = write(adata, tmp_path / "a.h5ad")
    of_file = AnnDataset(path, var_subset=["ENSG4"])
    assert pickle.loads(pickle.dumps(of_file)).var.equals(of_file.var)
    with pytest.raises(ValueError, match="AnnData: 'var' did not come with the copy of the dataset in this process"):
        _ = pickle.loads(pickle.dumps(dataset)).var


def test_what_is_not_over_genes_has_no_var(tmp_path: Path) -> None:
    adata = cells()
    adata.obsm["pca"] = np.zeros((8, 3), np.float32)
    adata.obsm["protein"] = pd.DataFrame({"CD3": np.arange(8.0), "CD4": np.arange(8.0)}, index=adata.obs_names)
    for source in (adata, write(adata, tmp_path / "a.h5ad"), [adata, adata]):
        for elem, names in (("obsm/pca", ["0", "1", "2"]), ("obsm/protein", ["CD3", "CD4"])):
            var = AnnDataset(source, elem=elem, obs_columns=[]).var
            assert (var.index.tolist(), list(var.columns)) == (names, [])


def joined(parts: list[anndata.AnnData], join: Any) -> anndata.AnnData:
    """anndata's concatenation, and pandas' of var: a gene as the first has it that has it."""
    adata = anndata.concat(parts, join=join, fill_value=0)
    var = pd.concat([part.var.astype(object) for part in parts])
    adata.var = var[~var.index.duplicated()].loc[adata.var_names]
    return adata


@pytest.mark.parametrize("as_files", [True, False])
@pytest.mark.parametrize("genes", [[[*range(6)], [*range(6)]], [[0, 1, 4], [4, 3, 0]]])
@pytest.mark.parametrize("join", ["inner", "outer"])
def test_var_of_several_is_what_they_agree_on(
    join: Any, genes: list[list[int]], as_files: bool, tmp_path: Path
) -> None:
    parts = [cells(of_one, first=i * 100) for i, of_one in enumerate(genes)]
    parts[0].var["only here"] = 1
    parts[1].var["length"] += 1  # not the same everywhere
    given = [write(part, tmp_path / f"{i}.h5ad") for i, part in enumerate(parts)] if as_files else parts
    found = AnnDataset(given, join=join, obs_columns=[]).var
    expected = joined(parts, join).var[["feature_name", "kept"]]
    pd.testing.assert_frame_equal(found.astype(object), expected.astype(object))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("form", FORMS)
def test_genes_by_symbol(form: str, change: Callable[..., Any], tmp_path: Path) -> None:
    source = hand_over(cells(), form, tmp_path)
    given = source if form == "path" else change(source)
    expected = by_symbol((cells() if form == "path" else change(cells())), ["NKG7", "CD3E"])
    dataset = AnnDataset(given, var_subset=["NKG7", "CD3E"], var_column="feature_name")
    assert dataset.var_names.equals(expected.var_names)
    np.testing.assert_array_equal(dense(next(iter(dataset.predict_loader(8)))["X"]), dense(expected.X))
    several = AnnDataset(given, elem={"X": "X", "t": "layers/twice"}, var_subset=["CD3E"], var_column="feature_name")
    assert several[1]["t"].tolist() == [2 * several[1]["X"].item()]
    raw = AnnDataset(given, elem="raw/X", var_subset=["raw 7"], var_column="feature_name")
    assert raw.var_names.tolist() == ["ENSG1b"]
    # A mask or a slice says itself which genes it means; numbers may be values of the column.
    assert AnnDataset(given, var_subset=slice(1, 2), var_column="feature_name").n_vars == 1
    with pytest.raises(TypeError, match="var_subset is of numbers, but var_column is 'feature_name'"):
        AnnDataset(given, var_subset=[1], var_column="feature_name")


@pytest.mark.parametrize("genes", [[[*range(6)], [*range(6)]], [[0, 1, 4], [4, 3, 0]]])
@pytest.mark.parametrize("join", ["inner", "outer"])
def test_genes_by_symbol_of_several(join: Any, genes: list[list[int]], tmp_path: Path) -> None:
    parts = [cells(of_one, first=i * 100) for i, of_one in enumerate(genes)]
    given = [write(part, tmp_path / f"{i}.h5ad") for i, part in enumerate(parts)]
    symbols = ["NKG7", "CD3E"] if join == "inner" else ["MS4A1", "NKG7"]
    dataset = AnnDataset(given, join=join, obs_columns=[], var_subset=symbols, var_column="feature_name")
    x = dense(next(iter(dataset.predict_loader(16)))["X"])
    np.testing.assert_array_equal(x, by_symbol(joined(parts, join), symbols).X)
    assert dataset.var["feature_name"].tolist() == symbols


def refused(error: type[Exception], words: str, source: Any, names: Any, column: Any = "feature_name") -> None:
    for given in (source, [source, source]):
        with pytest.raises(error, match=words):
            AnnDataset(given, var_subset=names, var_column=column, obs_columns=[])


def test_what_is_not_found_is_told_with_what_to_do(tmp_path: Path) -> None:
    path = write(cells(), tmp_path / "a.h5ad")
    for source in (path, cells()):
        has_it = "has no gene 'CD3E'. The column 'feature_name' of var has it: pass var_column='feature_name'"
        refused(UnknownNameError, has_it, source, ["ENSG1", "CD3E"], None)
        refused(UnknownNameError, "has no gene 'ENSG11'. Did you mean 'ENSG1'", source, ["ENSG11"], None)
        refused(UnknownNameError, "no 'CD3e' in the column 'feature_name'. Did you mean 'CD3E'", source, ["CD3e"])
        refused(UnknownNameError, "'ENSG1' in the column .* It is the name of a gene: leave out", source, ["ENSG1"])
        refused(
            UnknownNameError, "no column 'featurename'. Did you mean 'feature_name'", source, ["CD3E"], "featurename"
        )
        refused(UnknownNameError, "no 'nan' in the column", source, ["nan"])  # which is missing
        refused(ValueError, "'feature_name': 'TBCE': 'ENSG2', 'ENSG3'. Choose among them", source, ["CD3E", "TBCE"])
        refused(ValueError, "asks for column 0 twice", source, ["CD3E", "CD3E"])
        refused(ValueError, "var_column='feature_name' is given without a var_subset", source, None)
        refused(TypeError, "var_column is 3; expected the name of a column", source, ["CD3E"], 3)
    with pytest.raises(ValueError, match="given without a var_subset of genes"):
        AnnDataset(path, elem="obsm/pca", var_subset=[0], var_column="feature_name")


def test_a_gene_about_which_sources_differ_is_told() -> None:
    a, b = cells(), cells()
    b.var["feature_name"] = b.var["feature_name"].cat.rename_categories({"MS4A1": "CD20"})
    for genes in (slice(None), [4, 3, 1, 0]):
        given = {"a": a, "b": b[:, genes].copy()}
        chosen = AnnDataset(given, var_subset=["CD3E"], var_column="feature_name")
        assert chosen.var_names.tolist() == ["ENSG0"]
        for name in ("MS4A1", "CD20"):
            with pytest.raises(ValueError, match=r"'ENSG1' is 'MS4A1' .*AnnData 'a': 'var', and 'CD20' .*AnnData 'b'"):
                AnnDataset(given, var_subset=[name], var_column="feature_name")


def test_a_var_of_which_only_the_names_can_be_read_is_no_second_error(tmp_path: Path) -> None:
    path = write(cells(), tmp_path / "a.h5ad")
    with h5py.File(path, "a") as file:
        del file["var"], file["raw"]
        file["var"] = np.array([(name.encode(), 1.0) for name in IDS], [("index", "S8"), ("n", "f8")])
    with pytest.raises(UnknownNameError, match=r"no gene 'CD3E'\. There are 6: 'ENSG0'"):
        AnnDataset(path, var_subset=["CD3E"])


@pytest.mark.parametrize("several", [False, True])
def test_var_after_an_edit_is_that_of_the_delivered_genes_or_an_error(several: bool) -> None:
    adata = anndata.AnnData(np.eye(3, dtype="float32"), var=pd.DataFrame({"n": [1, 2, 3]}, index=list("ABC")))
    dataset = AnnDataset([adata, adata.copy()] if several else adata, var_subset=["B"])
    assert dataset.var["n"].to_dict() == {"B": 2}
    adata.var = adata.var.iloc[[1, 0, 2]]
    with pytest.raises(StaleDataError):
        _ = dataset.var


def test_of_several_the_var_is_what_has_no_such_gene() -> None:
    for column, words in (
        (None, "the var of 2 sources has no gene 'CD33'"),
        ("feature_name", "the var of 2 sources has no 'CD33' in the column"),
        ("kept", "the var of 2 sources has several genes with one value in the column 'kept'"),
    ):
        with pytest.raises((KeyError, ValueError), match=words):
            AnnDataset([cells(), cells()], var_subset=["True" if column == "kept" else "CD33"], var_column=column)


def test_each_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(write(cells(genes), tmp_path / f"{i}.h5ad")) for i, genes in enumerate(([0, 1, 4], [4, 0], [0, 1, 4]))]
    opened: Counter[str] = Counter()

    class Counted(h5py.File):
        def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
            opened[name] += 1
            super().__init__(name, *args, **kwargs)

    monkeypatch.setattr(h5py, "File", Counted)
    dataset = AnnDataset(paths, var_subset=["NKG7", "CD3E"], var_column="feature_name", obs_columns=[])
    assert dataset.var_names.tolist() == ["ENSG4", "ENSG0"]
    assert opened == dict.fromkeys(paths, 1)


def test_what_is_held_of_many_does_not_grow_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [cells([0, 1, 4]) for _ in range(8)]
    dataset = AnnDataset(parts, obs_columns=[])
    read: list[weakref.ref[pd.DataFrame]] = []
    whole, most = SourceVar.frame, []

    def frame(self: SourceVar, *args: Any) -> pd.DataFrame:
        found = whole(self, *args)
        read.append(weakref.ref(found))
        most.append(sum(one() is not None for one in read))
        return found

    monkeypatch.setattr(SourceVar, "frame", frame)
    pd.testing.assert_frame_equal(dataset.var, parts[0].var)
    assert len(read) == len(parts)
    assert max(most) <= 3  # the one that is kept, the one before, and this one


def test_ids_that_are_stored_as_floats(tmp_path: Path) -> None:
    whole, with_gaps = cells(), cells()
    whole.var["entrez"] = [916, 931, 6905, 1, 4818, 7157]
    with_gaps.var["entrez"] = [916.0, np.nan, 6905, 0.5, 4818, 7157]  # as pandas has it where one is missing
    with_gaps.var["as categories"] = pd.Categorical(with_gaps.var["entrez"])
    path = write(with_gaps, tmp_path / "a.h5ad")
    for source in (path, with_gaps):
        for column in ("entrez", "as categories"):
            found = AnnDataset(source, var_subset=["7157", "0.5", "916"], var_column=column)
            assert found.var_names.tolist() == ["ENSG5", "ENSG3", "ENSG0"]
        with pytest.raises(UnknownNameError, match=r"no gene '7157'\. The column 'entrez' of var has it"):
            AnnDataset(source, var_subset=["7157"])
        several = AnnDataset([source, whole], var_subset=["7157", "931"], var_column="entrez", obs_columns=[])
        assert several.var_names.tolist() == ["ENSG5", "ENSG1"]
        with pytest.raises(ValueError, match=r"'ENSG3' is '0\.5' .* and '1' in that of"):
            AnnDataset([source, whole], var_subset=["1"], var_column="entrez", obs_columns=[])


def test_sources_differ_only_about_joined_genes() -> None:
    a, b, c = cells([0, 1, 4]), cells([0, 1, 4]), cells([1, 4])
    b.var["feature_name"] = ["NKG7", None, "NKG7"]  # ENSG0 is CD3E in the first
    chosen = AnnDataset([a, b, c], var_subset=["NKG7", "MS4A1"], var_column="feature_name", obs_columns=[])
    assert chosen.var_names.tolist() == ["ENSG4", "ENSG1"]
    with pytest.raises(ValueError, match=r"the gene 'ENSG0' is 'CD3E' .*AnnData '0': 'var', and 'NKG7' .*AnnData '1'"):
        AnnDataset([a, b, c], join="outer", var_subset=["NKG7"], var_column="feature_name", obs_columns=[])


def test_names_may_come_from_an_iterator() -> None:
    elem = {"X": "X", "t": "layers/twice"}
    for source in (cells(), [cells(), cells()]):
        for names, column in ((["CD3E", "NKG7"], "feature_name"), (["ENSG0", "ENSG4"], None)):
            found = AnnDataset(source, elem=elem, var_subset=map(str, names), var_column=column, obs_columns=[])[1]
            assert found["t"].tolist() == [2 * x for x in found["X"].tolist()] == [14.0, 22.0]


def test_what_no_column_can_raise_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def frame(self: SourceVar, *_: Any) -> pd.DataFrame:
        raise MemoryError

    monkeypatch.setattr(SourceVar, "frame", frame)
    with pytest.raises(MemoryError):
        AnnDataset(cells(), var_subset=["CD3E"])
