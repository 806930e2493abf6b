"""Many files as one: what a collection holds is what anndata.concat and AnnCollection make of the same objects."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch
from anndata.experimental import AnnCollection
from tests.support.atlas import FILES, MAKE, adata_of, write
from tests.support.toys import dense

from annfeed import AnnDataset, AnnfeedWarning, CellSets, Compose, Log1p, NormalizeTotal, Scale, UnknownNameError
from annfeed.errors import FormatError

pytestmark = pytest.mark.filterwarnings("ignore:obs columns that not all")
FORMS = ["paths", "memory", "backed", "mixed", "pattern"]
SCRAMBLED = np.random.default_rng(3).permutation(91)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the atlas."""
    folder = tmp_path_factory.mktemp("atlas")
    write(folder)
    return folder


def hand_over(form: str, shelf: Path) -> Any:
    """The atlas as one of `FORMS`."""
    paths, memory = write(shelf), [adata_of(name) for name in FILES]
    backed = [anndata.read_h5ad(path, backed="r") for path in paths] if form in ("backed", "mixed") else []
    mixed = [paths[0], memory[1], *backed[2:3], paths[3]]
    return {
        "paths": paths,
        "memory": memory,
        "backed": backed,
        "mixed": mixed,
        "pattern": str(shelf / "*.h5ad"),
    }[form]


def concat(join: Any, names: str = "abcd", **options: Any) -> anndata.AnnData:
    """anndata's own answer; 0 where a gene was not measured."""
    return anndata.concat([adata_of(name) for name in names], join=join, fill_value=0, **options)


# --- rows and genes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("join", ["inner", "outer"])
def test_rows_are_those_of_anndata_concat(shelf: Path, join: Any, form: str, output: Any) -> None:
    wanted = concat(join, label="source")
    dataset = AnnDataset(hand_over(form, shelf), join=join, label="source", output=output)
    assert dataset.shape == wanted.shape
    assert list(dataset.var_names) == list(wanted.var_names)
    assert list(dataset.obs_names) == list(wanted.obs_names)
    batch = dataset.__getitems__(SCRAMBLED.tolist()).batch
    np.testing.assert_array_equal(dense(batch["X"]), dense(wanted.X).astype("f4")[SCRAMBLED])
    assert batch["obs_row"].tolist() == wanted.obs["row"].to_numpy()[SCRAMBLED].tolist()
    assert batch["obs_text"] == wanted.obs["text"].to_numpy()[SCRAMBLED].tolist()
    assert batch["obs_source"] == wanted.obs["source"].to_numpy()[SCRAMBLED].tolist()
    if output == "csr":
        torch.sparse_csr_tensor(
            batch["X"].crow_indices(), batch["X"].col_indices(), batch["X"].values(), wanted.shape,
            check_invariants=True,
        )  # fmt: skip


@pytest.mark.parametrize("join", ["inner", "outer"])
@pytest.mark.parametrize("kinds", ["csr csr", "csc csr", "dense dense", "csr dense", "dense csc"])
@pytest.mark.parametrize("dtypes", ["float32 float32", "uint8 int64", "float16 float64", "int16 uint16", "bool int32"])
def test_encodings_and_dtypes_beside_each_other(tmp_path: Path, join: Any, kinds: str, dtypes: str) -> None:
    random = np.random.default_rng(8)
    adatas, paths = [], []
    for i, (kind, dtype) in enumerate(zip(kinds.split(), dtypes.split(), strict=True)):
        if dtype == "float16" and kind != "dense":
            dtype = "float32"  # scipy has no sparse float16
        x = (random.integers(0, 3, (6 + i, 5)) * (random.random((6 + i, 5)) < 0.5)).astype(dtype)
        genes = [f"g{j}" for j in random.permutation(7)[:5]]
        adata = anndata.AnnData(MAKE[kind](x), var=pd.DataFrame(index=genes))
        adata.obs_names = [f"{i}-{j}" for j in range(6 + i)]
        paths.append(tmp_path / f"{i}.h5ad")
        adata.write_h5ad(paths[-1], compression="gzip" if i else None)
        adatas.append(adata)
    # Dense arrays that scipy and anndata do not mix: the same numbers, for their concat.
    for adata in adatas:
        adata.X = sp.csr_matrix(dense(adata.X).astype("f8"))
    wanted = anndata.concat(adatas, join=join)
    rows = random.permutation(13)
    for torch_dtype in (torch.float32, torch.int16, torch.bfloat16):
        for output in ("dense", "csr"):
            dataset = AnnDataset(paths, join=join, output=output, dtype=torch_dtype)
            assert list(dataset.var_names) == list(wanted.var_names)
            x = dataset.__getitems__(rows.tolist()).batch["X"]
            assert x.dtype == torch_dtype
            np.testing.assert_array_equal(x.to_dense().float().numpy(), dense(wanted.X)[rows])


def test_rows_are_those_of_anncollection(shelf: Path) -> None:
    collection = AnnCollection([adata_of(name) for name in "ac"], join_vars="inner", join_obs="inner", label="source")
    dataset = AnnDataset(write(shelf, "ac"), label="source", categories="code")
    assert list(dataset.var_names) == list(collection.var_names)
    rows = np.random.default_rng(0).permutation(60)
    wanted = collection[rows]
    batch = dataset.__getitems__(rows.tolist()).batch
    np.testing.assert_array_equal(batch["X"].numpy(), dense(wanted.X))
    assert dataset.categories["source"][batch["obs_source"].numpy()].tolist() == wanted.obs["source"].tolist()


@pytest.mark.parametrize("join", ["inner", "outer"])
def test_gene_subsets_are_of_the_joined_genes(shelf: Path, join: Any) -> None:
    wanted = concat(join)
    n = wanted.n_vars
    names = [wanted.var_names[i] for i in (n - 1, 0, 2)]
    mask = np.arange(n) % 2 == 0
    for subset, columns in [(names, [n - 1, 0, 2]), ([-1, 1], [n - 1, 1]), (mask, np.flatnonzero(mask))]:
        dataset = AnnDataset(write(shelf), join=join, var_subset=subset, obs_columns=[])
        assert list(dataset.var_names) == list(wanted.var_names[columns])
        x = dataset.__getitems__(SCRAMBLED.tolist()).batch["X"]
        np.testing.assert_array_equal(x.numpy(), dense(wanted.X)[SCRAMBLED][:, columns])
    with pytest.raises(UnknownNameError, match="4 sources has no gene 'gene77'"):
        AnnDataset(write(shelf), join=join, var_subset=["gene77"])


def test_a_gene_that_most_files_lack(shelf: Path) -> None:
    dataset = AnnDataset(write(shelf), join="outer", var_subset=["gene9"], obs_columns=[])
    wanted = dense(concat("outer")[:, ["gene9"]].X)
    np.testing.assert_array_equal(dataset.__getitems__(range(91)).batch["X"].numpy(), wanted)
    assert wanted.any()
    assert dataset.var_mask[:, 0].tolist() == [False, False, False, True]


def test_row_subsets_are_of_all_rows(shelf: Path) -> None:
    wanted = concat("inner")
    for subset in ([90, 0, 45, 0, 71], np.arange(91) % 3 == 0):
        dataset = AnnDataset(write(shelf), obs_subset=subset)
        obs = wanted[subset] if np.asarray(subset).dtype == bool else wanted[np.asarray(subset)]
        assert dataset.obs["row"].tolist() == obs.obs["row"].tolist()
        assert [item["obs_row"].item() for item in map(dataset.__getitem__, range(len(dataset)))] == obs.obs[
            "row"
        ].tolist()
    with pytest.raises(IndexError, match="91"):
        AnnDataset(write(shelf), obs_subset=[91])


def test_which_genes_were_measured_pitfall_16(shelf: Path) -> None:
    # Row 16: outer join zeros without mask.
    dataset = AnnDataset(write(shelf), join="outer", label="source", categories="code")
    names = list(dataset.var_names)
    for mask, name in zip(dataset.var_mask, FILES, strict=True):
        assert [n for n, there in zip(names, mask, strict=True) if there] == sorted(adata_of(name).var_names)
    for batch in dataset.get_optimized_dataloader(batch_size=13, seed=0):
        measured = dataset.var_mask[batch["obs_source"]]
        assert measured.shape == batch["X"].shape
        assert not batch["X"][~measured].any()
    assert AnnDataset(write(shelf)).var_mask.all()
    assert AnnDataset(write(shelf)[0]).var_mask.tolist() == [[True] * 6]


@pytest.mark.parametrize("form", ["paths", "memory"])
def test_several_elements_at_once(shelf: Path, form: str) -> None:
    places = {"X": "X", "double": "layers/double", "pca": "obsm/X_pca"}
    dataset = AnnDataset(hand_over(form, shelf), elem=places, join="outer")
    wanted = concat("outer")
    batch = dataset.__getitems__(SCRAMBLED.tolist()).batch
    np.testing.assert_array_equal(batch["X"].numpy(), dense(wanted.X)[SCRAMBLED])
    np.testing.assert_array_equal(batch["double"].numpy(), dense(wanted.layers["double"])[SCRAMBLED])
    np.testing.assert_array_equal(batch["pca"].numpy(), wanted.obsm["X_pca"][SCRAMBLED])


def test_columns_without_names_must_be_equally_many(tmp_path: Path) -> None:
    adatas = [anndata.AnnData(np.eye(3), obsm={"X_pca": np.eye(3)[:, :k]}) for k in (2, 3)]
    with pytest.raises(ValueError, match=r"AnnData '1': 'obsm/X_pca' has 3 columns, but AnnData '0'.* has 2"):
        AnnDataset(adatas, elem="obsm/X_pca")


@pytest.mark.parametrize("elem", ["X", "raw/X", "layers/counts", "obsm/array", "obsm/frame"])
def test_what_one_of_several_lacks_is_told_with_its_name(tmp_path: Path, elem: str) -> None:
    def made(whole: bool) -> anndata.AnnData:
        obs, var = (pd.DataFrame(index=list("abc")) for _ in range(2))
        if not whole:
            return anndata.AnnData(obs=obs, var=var)
        obsm = {"array": np.eye(3), "frame": pd.DataFrame(np.eye(3), index=obs.index, columns=["x", "y", "z"])}
        adata = anndata.AnnData(np.eye(3), obs, var, layers={"counts": np.eye(3)}, obsm=obsm)
        adata.raw = adata.copy()
        return adata

    for order in ((True, False), (False, True)):
        parts = {f"donor {i}": made(whole) for i, whole in enumerate(order)}
        lacks = f"AnnData 'donor {order.index(False)}' has no "
        with pytest.raises(UnknownNameError, match=lacks):
            AnnDataset(parts, elem=elem)
        for name, part in parts.items():
            part.write_h5ad(tmp_path / f"{name}.h5ad")
        with pytest.raises((UnknownNameError, FormatError), match=rf"donor {order.index(False)}\.h5ad"):
            AnnDataset({name: tmp_path / f"{name}.h5ad" for name in parts}, elem=elem)


def test_an_array_of_three_axes_is_told_with_its_shape(tmp_path: Path) -> None:
    adata = anndata.AnnData(np.eye(3), obsm={"deep": np.ones((3, 2, 2))})
    adata.write_h5ad(tmp_path / "deep.h5ad")
    for given in (adata, [adata, adata], tmp_path / "deep.h5ad"):
        with pytest.raises((TypeError, ValueError), match=r"'obsm/deep'.* of shape [\[(]3, 2, 2"):
            AnnDataset(given, elem="obsm/deep")


@pytest.mark.parametrize("breaks", [[0, 1, 2, 3], [0.5, 1, 2, 3], pd.date_range("2020", periods=4)])
@pytest.mark.parametrize("join", ["inner", "outer"])
def test_intervals_that_one_source_lacks(breaks: Any, join: Any) -> None:
    adatas = [anndata.AnnData(np.eye(3)) for _ in range(2)]
    adatas[0].obs["iv"] = pd.arrays.IntervalArray.from_breaks(breaks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = AnnDataset(adatas, join=join, categories="code")
        wanted = anndata.concat(adatas, join=join).obs
    assert list(dataset.obs.columns) == list(wanted.columns) == (["iv"] if join == "outer" else [])
    if join == "outer":
        assert dataset.obs["iv"].tolist()[:3] == wanted["iv"].tolist()[:3]
        assert dataset.obs["iv"].isna().tolist() == wanted["iv"].isna().tolist() == [False] * 3 + [True] * 3
        assert [item["obs_iv"].item() for item in dataset[[0, 1, 2, 3, 4, 5]]] == [0, 1, 2, -1, -1, -1]


def test_genes_that_a_file_has_twice_are_named(tmp_path: Path) -> None:
    adatas = [anndata.AnnData(np.eye(4), var=pd.DataFrame(index=list(names))) for names in ("abcd", "abca")]
    adatas[1].write_h5ad(tmp_path / "twice.h5ad")
    for join in ("inner", "outer"):
        with pytest.raises(ValueError, match=r"twice\.h5ad: 'var' has several genes of one name: 'a'; .*make_unique"):
            AnnDataset([adatas[0], tmp_path / "twice.h5ad"], join=join)


@pytest.mark.parametrize("join", ["inner", "outer"])
def test_genes_that_are_alike_in_all_files_need_not_be_distinct_or_sorted(tmp_path: Path, join: Any) -> None:
    """many-files.md: neither a ValueError nor another order, where all files have the same genes in the same order."""
    adatas = [anndata.AnnData(np.arange(i, i + 6.0).reshape(2, 3), var=pd.DataFrame(index=list("bab"))) for i in (0, 9)]
    adatas[1].write_h5ad(tmp_path / "x.h5ad")
    dataset = AnnDataset([adatas[0], tmp_path / "x.h5ad"], join=join)
    assert dataset.var_names.tolist() == ["b", "a", "b"]
    assert np.array_equal(np.stack([item["X"] for item in dataset[:]]), np.vstack([adata.X for adata in adatas]))
    for adata in adatas:
        adata.var_names = list("cab")
    adatas[1].write_h5ad(tmp_path / "x.h5ad")
    wanted = anndata.concat(adatas, join=join).var_names.tolist()
    assert AnnDataset([adatas[0], tmp_path / "x.h5ad"], join=join).var_names.tolist() == wanted == list("cab")


def test_files_with_no_gene_in_common(tmp_path: Path) -> None:
    adatas = [anndata.AnnData(np.eye(2), var=pd.DataFrame(index=list(names))) for names in ("ab", "cd")]
    with pytest.raises(ValueError, match=r"no gene is in all 2 files: AnnData '0': 'var' has 'a', 'b', AnnData '1'"):
        AnnDataset(adatas)
    assert AnnDataset(adatas, join="outer").shape == (4, 4)


def test_rows_and_obs_are_compared_file_by_file(tmp_path: Path) -> None:
    import h5py

    # One row too many here and one too few there would cancel out.
    paths = [*write(tmp_path, "a"), tmp_path / "x.h5ad"]
    adata_of("a").write_h5ad(paths[1])
    with h5py.File(paths[1], "r+") as file:
        file["X"].attrs["shape"] = [39, 6]
    with pytest.raises(FormatError, match=r"x\.h5ad: 'X' has 39 rows, but obs has 40"):
        AnnDataset(paths)


# --- obs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("join", ["inner", "outer"])
def test_obs_is_that_of_anndata_concat(shelf: Path, join: Any, form: str) -> None:
    wanted = concat(join, label="source", index_unique="-").obs
    found = AnnDataset(hand_over(form, shelf), join=join, label="source", index_unique="-").obs
    # Whole numbers and truth values stay what they are, with missing ones, where pandas makes them floats and objects.
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False, check_categorical=True)
    assert list(found.index) == list(wanted.index)


@pytest.mark.parametrize("form", FORMS)
def test_one_code_for_a_label_pitfall_10(shelf: Path, form: str) -> None:
    # Row 10: label drift through per-file categories, their order, missing values and -1.
    wanted = concat("outer").obs["label"]
    dataset = AnnDataset(hand_over(form, shelf), join="outer", categories="code", label="source")
    # In natural order, as anndata has them: "type 2" before "type 10".
    assert list(dataset.categories["label"]) == list(wanted.cat.categories)
    assert list(dataset.categories["source"]) == ["0", "1", "2", "3"]
    assert any(list(adata_of(n).obs["label"].cat.categories) != list(wanted.cat.categories) for n in FILES)
    batch = dataset.__getitems__(range(91)).batch
    assert batch["obs_label"].tolist() == wanted.cat.codes.tolist()
    assert -1 in batch["obs_label"].tolist()
    # The same label has the same code in each file's rows, alone or together.
    for rows in (range(40, 70), range(90, 91)):
        assert dataset.__getitems__(rows).batch["obs_label"].tolist() == wanted.cat.codes.iloc[rows].tolist()


def test_missing_columns_are_missing_values_of_the_right_kind(shelf: Path) -> None:
    with pytest.warns(AnnfeedWarning) as caught:
        dataset = AnnDataset(write(shelf), join="outer", categories="code")
    told = [str(w.message) for w in caught]
    assert len(told) == 1
    assert "'score' is not in " in told[0] and "b.h5ad" in told[0] and "'flag' is not in " in told[0]
    batch = dataset.__getitems__(range(91)).batch
    in_b = torch.zeros(91, dtype=torch.bool)
    in_b[40:70] = True
    assert batch["obs_score"].dtype == torch.float32 and torch.equal(batch["obs_score"].isnan(), in_b)
    for name, value in {"n": 2 * 50, "flag": 1}.items():
        values = batch[f"obs_{name}"]
        assert values.dtype == torch.float64 and torch.equal(values.isnan(), ~in_b)
        assert values[40] == value
    assert torch.equal(batch["obs_only_b"] == -1, ~in_b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(pickle.dumps(dataset)).__getitems__([0, 45])  # once, not in each worker
    texts = AnnDataset(write(shelf), join="outer", obs_columns=["only_b"]).__getitems__([0, 40]).batch["obs_only_b"]
    assert texts == ["nan", "b50"]


def test_a_column_of_sources_that_nobody_asked_for_is_told_of(shelf: Path) -> None:
    dataset = AnnDataset(write(shelf), obs_columns=["row"])
    with pytest.raises(UnknownNameError, match=r"no column 'run'.*label='run' would make one that tells from which"):
        dataset.get_optimized_dataloader(2, sets=CellSets(by="run", size=2))
    for labelled, column in ((dataset, "lable"), (AnnDataset(write(shelf), obs_columns=["row"], label="run"), "donor")):
        with pytest.raises(UnknownNameError, match="has no column") as raised:
            labelled.split([0.5, 0.5], group_by=column)
        assert "would make" not in str(raised.value)


def test_columns_that_not_all_have_are_left_out_of_an_inner_join(shelf: Path) -> None:
    with pytest.warns(AnnfeedWarning, match=r"are left out.*'score' is not in .*b\.h5ad"):
        dataset = AnnDataset(write(shelf), label="source")
    assert list(dataset[0]) == ["X", "obs_row", "obs_label", "obs_text", "obs_source"]
    with pytest.raises(UnknownNameError, match=r"b\.h5ad: obs has no column 'score', .* join='outer'"):
        AnnDataset(write(shelf), obs_columns=["score"])
    with pytest.raises(UnknownNameError, match=r"no column 'celltype'"):
        AnnDataset(write(shelf), join="outer", obs_columns=["celltype"])
    with pytest.raises(UnknownNameError, match=r"Some sources have it, but not .*b\.h5ad: obs; join='outer' gives"):
        dataset.split([0.5, 0.5], group_by="score")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(AnnDataset(write(shelf), obs_columns=["row"])[0]) == ["X", "obs_row"]


def test_labels_and_keys(shelf: Path) -> None:
    paths = write(shelf)
    keys = list(FILES)
    for sources, options in [(paths, {"keys": keys}), (dict(zip(keys, paths, strict=True)), {})]:
        dataset = AnnDataset(sources, label="file", obs_columns=["row"], **options)
        assert dataset.obs["file"].tolist() == ["a"] * 40 + ["b"] * 30 + ["c"] * 20 + ["d"]
        assert dataset[45]["obs_file"] == "b"
    assert dataset.sources == [str(path) for path in paths]
    assert list(AnnDataset(paths[0], label="file", keys=["only"])[3].items())[-1] == ("obs_file", "only")
    with pytest.raises(ValueError, match=r"a\.h5ad: obs has a column 'row' already"):
        AnnDataset(paths, label="row")
    with pytest.raises(ValueError, match="the key 'x' is there twice"):
        AnnDataset(paths[:2], keys=["x", "x"])
    with pytest.raises(ValueError, match="3 keys for 2 sources"):
        AnnDataset(paths[:2], keys=["x", "y", "z"])
    with pytest.raises(TypeError, match="keys= is given, and the sources are a dict"):
        AnnDataset({"a": paths[0]}, keys=["a"])


def test_edits_of_an_anndata_reach_the_next_epoch(shelf: Path) -> None:
    memory = adata_of("c")
    dataset = AnnDataset([write(shelf)[0], memory], obs_columns=["label"], categories="code")
    loader = dataset.get_optimized_dataloader(60, shuffle=False)
    before = next(iter(loader))["obs_label"]
    memory.obs["label"] = pd.Categorical(["brand new"] * 20)
    after = next(iter(loader))["obs_label"]
    wanted = anndata.concat([adata_of("a"), memory]).obs["label"]
    assert after.tolist() == wanted.cat.codes.tolist() != before.tolist()
    assert list(dataset.categories["label"]) == list(wanted.cat.categories)


# --- transforms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("join", ["inner", "outer"])
def test_transforms_are_those_of_scanpy_on_the_whole(shelf: Path, join: Any, output: Any) -> None:
    wanted = concat(join)
    wanted.X = dense(wanted.X).astype("f4")
    sc.pp.normalize_total(wanted, target_sum=1e4)
    sc.pp.log1p(wanted)
    steps = [NormalizeTotal(1e4, over="delivered"), Log1p()]  # of joined genes; of each file's own: test_totals.py
    if output == "dense":
        mean, std = wanted.X.mean(0), wanted.X.std(0) + 0.5
        wanted.X = (wanted.X - mean) / std
        steps.append(Scale(torch.from_numpy(mean), torch.from_numpy(std)))
    dataset = AnnDataset(write(shelf), join=join, transform=Compose(steps), output=output)
    x = dataset.__getitems__(SCRAMBLED.tolist()).batch["X"]
    np.testing.assert_allclose(dense(x), wanted.X[SCRAMBLED], rtol=1e-5, atol=1e-6)


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_value_that_does_not_fit_names_file_and_column(tmp_path: Path) -> None:
    for name, genes in {"fits": "abc", "does_not": "ca"}.items():
        x = np.array([[1] * len(genes), [2] * len(genes)])
        if name == "does_not":
            x[1, 0] = 300
        anndata.AnnData(sp.csr_matrix(x), var=pd.DataFrame(index=list(genes))).write_h5ad(tmp_path / f"{name}.h5ad")
    for output in ("dense", "csr"):
        dataset = AnnDataset(
            [tmp_path / "fits.h5ad", tmp_path / "does_not.h5ad"], join="outer", dtype=torch.uint8, output=output
        )
        with pytest.raises(ValueError, match=r"does_not\.h5ad: 'X': column 2 holds the value 300"):
            dataset.__getitems__([0, 3])
        rounded = AnnDataset(
            [tmp_path / "fits.h5ad", tmp_path / "does_not.h5ad"], join="outer", dtype=torch.bfloat16, output=output
        )
        assert rounded.__getitems__([0, 3]).batch["X"].to_dense()[1].tolist() == [2, 0, 300]


def test_a_rounded_number_is_told_with_its_joined_column() -> None:
    adatas = [
        anndata.AnnData(np.array([values], dtype="int64"), var=pd.DataFrame(index=list(genes)))
        for genes, values in {"ab": [1, 2], "cb": [2**24 + 1, 1]}.items()
    ]
    for output in ("dense", "csr"):
        dataset = AnnDataset(adatas, join="outer", output=output)
        with pytest.warns(AnnfeedWarning, match=r"the whole number 16777217 \(column 2\)"):
            dataset.__getitems__([0, 1])
