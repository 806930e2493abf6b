"""Several modalities of a MuData: rows are its cells, as mudata itself aligns them; from files and from memory."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
from tests.support.mudata_toys import CORPUS, ELEMS, aligned, as_new, cite, expected, modality, read, written

from annfeed import AnnDataset, CellSets, Log1p, NormalizeTotal, Tokens
from annfeed.errors import FormatError, StaleDataError, UnknownNameError
from annfeed.transforms.base import Compose

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mudata", "ignore::FutureWarning:mudata")

FORMS = ["file", "memory", "backed", "view"]


@pytest.fixture(scope="module")
def whole() -> mudata.MuData:
    return cite()


@pytest.fixture(scope="module")
def path(whole: mudata.MuData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(whole, tmp_path_factory.mktemp("mudata") / "cite.h5mu")


def form_of(path: Path, form: str) -> tuple[Any, mudata.MuData]:
    """What a dataset is made of, and the MuData that it should be like."""
    mdata = read(path)
    if form == "view":
        view = mdata[np.r_[38, 4:20, 35, 2]]
        return view, view
    return {"file": path, "memory": mdata, "backed": read(path, backed=form == "backed")}[form], mdata


def check(batch: Any, wanted: dict[str, Any], rows: Any = slice(None)) -> None:
    for key, values in wanted.items():
        found = batch[key].to_dense() if batch[key].layout is torch.sparse_csr else batch[key]
        np.testing.assert_array_equal(found.numpy(), values[rows], err_msg=key)


# --- matrices ---------------------------------------------------------------------------------------------------------


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["v0.1.2_axis0", "v0.2.4_axis0", "v0.3.10_axis1"])
@pytest.mark.parametrize("in_memory", [False, True])
def test_real_files_of_all_versions(name: str, in_memory: bool) -> None:
    file = CORPUS / f"{name}.h5mu"
    mdata = read(file)
    elems = {"two": "mod/mod2/X", "raw": "mod/mod1/raw/X"}
    dataset = AnnDataset(mdata if in_memory else file, elem=elems)
    batch = dataset[:].batch
    check(batch, {"two": aligned(mdata, "mod2", mdata["mod2"].X), "raw": aligned(mdata, "mod1", mdata["mod1"].raw.X)})
    check(batch, {"two_measured": np.asarray(mdata.obsmap["mod2"]) > 0})
    assert dataset.obs_names.tolist() == mdata.obs_names.tolist()
    assert batch["obs_arange"].tolist() == mdata.obs["arange"].tolist()


@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("form", FORMS)
def test_rows_are_those_of_mudata(path: Path, form: str, output: Any) -> None:
    source, mdata = form_of(path, form)
    dataset = AnnDataset(source, elem=ELEMS, output=output, return_index=True)
    wanted = expected(mdata)
    assert not all(wanted["rna_measured"])
    assert not all(wanted["prot_measured"])
    rows = [5, 3, 3, 17, *range(len(mdata.obs))]
    check(dataset[rows].batch, wanted, rows)
    for batch in dataset.get_optimized_dataloader(7, seed=1):
        check(batch, wanted, batch["index"])
    again = pickle.loads(pickle.dumps(dataset))
    check(again[rows].batch, wanted, rows)
    assert dataset.n_vars == 12
    assert dataset.var_names.equals(mdata["rna"].var_names)
    assert dataset.var["gene_ids"].tolist() == mdata["rna"].var["gene_ids"].tolist()
    if not isinstance(source, mudata.MuData):
        assert dataset.inspect().shape == (33, 12)
        assert dataset.stats()["opens"] > 0
    dataset.close()


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("how", ["obsmap", "names", "no obs"])
def test_axes_with_and_without_obsmap(axis: int, how: str, tmp_path: Path) -> None:
    """Without ``obsmap``, as in old files, cells go by their names; without obs they are those of the modalities."""
    cells = [["a", "b", "c"], ["c", "d", "a"], ["x", "b"]] if axis != 1 else [["a", "b"], ["c"], ["d", "e", "f"]]
    parts = {
        name: modality(of, 4, seed, "g", sparse=bool(seed % 2))
        for seed, (name, of) in enumerate(zip("zyx", cells, strict=True))
    }
    with as_new():
        mdata = mudata.MuData(parts, axis=axis)
    file = written(mdata, tmp_path / "cells.h5mu")
    if how != "obsmap":
        with h5py.File(file, "r+") as h5:
            del h5["obsmap"]
            if how == "no obs":
                del h5["obs"], h5["obsm"]
    mdata = read(file)
    dataset = AnnDataset(file, elem={name: f"mod/{name}/X" for name in "zyx"})
    assert dataset.obs_names.tolist() == mdata.obs_names.tolist()
    batch = dataset[:].batch
    check(batch, {name: aligned(mdata, name, mdata[name].X) for name in "zyx"})
    check(batch, {f"{name}_measured": np.asarray(mdata.obsmap[name]) > 0 for name in "zyx"})


def test_cells_of_one_name_follow_each_other_in_axis_1(tmp_path: Path) -> None:
    with as_new():
        mdata = mudata.MuData(
            {m: modality(["a", "b", "c"], 4, s, "g", sparse=True) for s, m in enumerate("ts")}, axis=1
        )
    file = written(mdata, tmp_path / "cells.h5mu")
    for source in (file, mdata):
        batch = AnnDataset(source, elem={"t": "mod/t/X", "s": "mod/s/X"}, cells=["s"])[:].batch
        check(batch, {"s": mdata["s"].X.toarray(), "t": np.zeros((3, 4)), "t_measured": np.zeros(3, bool)})


@pytest.mark.parametrize("form", FORMS)
def test_one_modality_is_a_plain_anndata(path: Path, form: str) -> None:
    source, mdata = form_of(path, form)
    dataset = AnnDataset(source, elem="mod/prot/layers/clr")
    check(dataset[:].batch, {"X": np.asarray(mdata["prot"].layers["clr"])})
    assert dataset.obs_names.equals(mdata["prot"].obs_names)
    assert set(dataset[0]) == {"X", *(f"obs_{name}" for name in mdata["prot"].obs)}
    x = mdata["rna"].X.toarray()
    several = {"X": "mod/rna/X", "pca": "mod/rna/obsm/X_pca"}
    check(AnnDataset(source, elem=several)[:].batch, {"X": x, "pca": mdata["rna"].obsm["X_pca"]})
    check(AnnDataset([source, source], elem="mod/rna/X")[:].batch, {"X": np.concatenate([x, x])})


def test_a_modality_of_a_backed_mudata_by_itself(path: Path) -> None:
    mdata, wanted = read(path, backed=True), read(path)["rna"].X.toarray()
    dataset = AnnDataset(mdata["rna"])
    check(dataset[:].batch, {"X": wanted})
    assert dataset.stats()["bytes_read"] > 0


@pytest.mark.parametrize("form", FORMS)
def test_matrices_of_all_cells_beside_those_of_modalities(path: Path, form: str) -> None:
    source, mdata = form_of(path, form)
    batch = AnnDataset(source, elem={"rna": "mod/rna/X", "mofa": "obsm/X_mofa"})[:].batch
    check(batch, {"rna": expected(mdata)["rna"], "mofa": np.asarray(mdata.obsm["X_mofa"])})
    assert "mofa_measured" not in batch


def test_transforms_and_genes(path: Path) -> None:
    """Totals are those of all genes of the modality; a cell that was not measured has zeros."""
    mdata = read(path)
    scaled = anndata.AnnData(aligned(mdata, "rna", mdata["rna"].X))
    sc.pp.normalize_total(scaled, target_sum=100)
    sc.pp.log1p(scaled)
    elems = {"X": "mod/rna/X", "prot": "mod/prot/layers/clr"}
    chosen = {"X": ["g7", "g2"], "prot": [4, 0]}
    options: dict[str, Any] = {"var_subset": chosen, "transform": Compose([NormalizeTotal(100), Log1p()])}
    for source in (path, mdata):
        batch = AnnDataset(source, elem=elems, **options)[:].batch
        np.testing.assert_allclose(batch["X"], np.asarray(scaled.X)[:, [7, 2]], rtol=1e-5)
        check(batch, {"prot": expected(mdata)["prot"][:, [4, 0]]})
        by_id = AnnDataset(source, elem=elems, var_subset={"X": ["g_7"]}, var_column="gene_ids")
        check(by_id[:].batch, {"X": expected(mdata)["rna"][:, [7]]})


@pytest.mark.parametrize("step", [NormalizeTotal(100), Log1p()])
def test_a_step_on_x_where_no_matrix_is_x(path: Path, step: Any) -> None:
    """It would be done to none, and counts would pass for normalised values."""
    elems = {"rna": "mod/rna/X", "prot": "mod/prot/X"}
    with pytest.raises(
        UnknownNameError, match=r"works on 'X'.*'rna', 'prot'.*as \{'X': 'mod/rna/X'\} in place of 'rna'"
    ):
        AnnDataset(path, elem=elems, transform=Compose([step, Log1p()]))
    dataset = AnnDataset(path, elem=elems)
    dataset.transform = step
    with pytest.raises(UnknownNameError, match="works on 'X'"):
        next(iter(dataset.get_optimized_dataloader(2, seed=0)))


# --- obs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_obs_of_all_cells_and_of_modalities(path: Path, form: str) -> None:
    """The columns are named as mudata names those that it pulls, and joined as by an outer join."""
    source, mdata = form_of(path, form)
    dataset = AnnDataset(source, elem=ELEMS)
    pulled = mdata.copy()
    pulled.pull_obs(common=True, join_common=False)
    obs = dataset.obs
    assert set(obs) == set(pulled.obs)
    assert obs.index.equals(mdata.obs_names)
    batch, codes = dataset[:].batch, AnnDataset(source, elem=ELEMS, categories="code")
    for name in obs:
        mod, _, column = name.rpartition(":")
        wanted = mdata.obs[name] if not mod else mdata[mod].obs[column].reindex(mdata.obs_names)
        np.testing.assert_array_equal(obs[name].isna(), wanted.isna(), err_msg=name)
        assert obs[name].dropna().tolist() == wanted.dropna().tolist(), name
        assert pulled.obs[name].reindex(wanted.index).dropna().tolist() == wanted.dropna().tolist(), name
        if isinstance(wanted.dtype, pd.CategoricalDtype):
            assert codes.categories[name].tolist() == wanted.cat.categories.tolist()
            assert codes[:].batch[f"obs_{name}"].tolist() == wanted.cat.codes.tolist()
        elif mod:
            texts = ["nan" if pd.isna(value) else value for value in wanted]
            values = batch[f"obs_{name}"]
            if isinstance(values, list):
                assert values == texts
            else:
                np.testing.assert_allclose(values, wanted.astype("float64"), rtol=1e-6)
    some = AnnDataset(source, elem=ELEMS, obs_columns=["prot:leiden", "donor"])
    assert [key for key in some[0] if key.startswith("obs_")] == ["obs_prot:leiden", "obs_donor"]
    with pytest.raises(UnknownNameError, match="Did you mean 'rna:leiden'"):
        AnnDataset(source, elem=ELEMS, obs_columns=["rna:leyden"])


def test_a_column_of_the_whole_comes_before_that_of_a_modality(tmp_path: Path) -> None:
    mdata = cite()
    mdata.obs["rna:leiden"] = [f"of all {i}" for i in range(mdata.n_obs)]
    for source in (mdata, written(mdata, tmp_path / "cells.h5mu")):
        assert AnnDataset(source, elem=ELEMS)[3]["obs_rna:leiden"] == "of all 3"


def test_edits_in_memory_are_followed() -> None:
    mdata = cite()
    dataset = AnnDataset(mdata, elem=ELEMS, obs_columns=["rna:n", "donor"])
    row = int(np.argmax(np.asarray(mdata.obsmap["rna"]) == 3))
    assert dataset[row]["obs_rna:n"] == mdata["rna"].obs["n"].iloc[2]
    mdata["rna"].obs.iloc[2, mdata["rna"].obs.columns.get_loc("n")] = 77
    mdata.obs["donor"] = "new"
    assert (dataset[row]["obs_rna:n"], dataset[row]["obs_donor"]) == (77, "new")
    mdata["rna"].X = mdata["rna"].X * 2
    check(dataset[:].batch, expected(mdata))


# --- which cells ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_cells(path: Path, form: str) -> None:
    source, mdata = form_of(path, form)
    wanted = expected(mdata)
    both = np.flatnonzero(wanted["rna_measured"] & wanted["prot_measured"])
    rna = np.flatnonzero(wanted["rna_measured"])
    for cells, rows in (("all", np.arange(mdata.n_obs)), ("common", both), (["rna"], rna), (["prot", "rna"], both)):
        dataset = AnnDataset(source, elem=ELEMS, cells=cells, return_index=True)
        batch = dataset[:].batch
        assert batch["index"].tolist() == rows.tolist() == dataset.rows_at(np.arange(len(dataset))).tolist()
        check(batch, wanted, rows)
        assert dataset.obs_names.equals(mdata.obs_names[rows])
    # With one modality, its rows become those of the whole.
    one = AnnDataset(source, elem="mod/rna/X", cells="all")
    check(one[:].batch, {"X": wanted["rna"], "X_measured": wanted["rna_measured"]})
    # Positions and masks are of all cells.
    subset = AnnDataset(source, elem=ELEMS, cells="common", obs_subset=[both[2], 0, both[1]], return_index=True)
    assert subset[:].batch["index"].tolist() == [row for row in (both[2], 0, both[1]) if row in both]
    mask = mdata.obs["donor"] == "d1"
    assert len(AnnDataset(source, elem=ELEMS, cells="common", obs_subset=mask)) == int(mask.iloc[both].sum())


@pytest.mark.parametrize(
    ("cells", "error", "found"),
    [
        ("rna", ValueError, r"cells is 'rna'; expected .*Pass \['rna'\]"),
        (["rma"], UnknownNameError, "cells has 'rma'.*Did you mean 'rna'"),
        ([], TypeError, "cells is"),
        ([1], TypeError, "cells is"),
    ],
)
def test_cells_that_there_are_not(path: Path, cells: Any, error: type[Exception], found: str) -> None:
    for source in (path, [path, path]):
        with pytest.raises(error, match=found):
            AnnDataset(source, elem=ELEMS, cells=cells)


def test_cells_are_for_mudata(tmp_path: Path) -> None:
    adata = anndata.AnnData(np.eye(3, dtype="float32"))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    for source in (adata, tmp_path / "cells.h5ad", [adata, adata]):
        with pytest.raises(ValueError, match=r"cells='all' is given, and .* is not a MuData"):
            AnnDataset(source, cells="all")


# --- several MuData ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", ["all", "common"])
def test_several_mudata_are_joined(cells: Any, tmp_path: Path) -> None:
    parts = [cite(20, seed, f"s{seed}-") for seed in (0, 1)]
    parts[1].mod["rna"] = parts[1]["rna"][:, ::-1].copy()
    with as_new():
        parts[1] = mudata.MuData(dict(parts[1].mod), obs=parts[1].obs)
    files = [written(part, tmp_path / f"{i}.h5mu") for i, part in enumerate(parts)]
    wanted = {key: np.concatenate([expected(part)[key] for part in parts]) for key in expected(parts[0])}
    wanted["rna"][20:] = wanted["rna"][20:, ::-1]
    rows = np.flatnonzero(wanted["rna_measured"] & wanted["prot_measured"]) if cells == "common" else np.arange(40)
    for sources in (files, parts, [files[0], parts[1]], tmp_path / "*.h5mu"):
        dataset = AnnDataset(sources, elem=ELEMS, cells=cells, label="sample", return_index=True)
        batch = dataset[:].batch
        check(batch, wanted, rows)
        assert batch["index"].tolist() == rows.tolist()
        assert batch["obs_sample"] == [str(row // 20) for row in rows]
        assert [*dataset.source_rows] == [range(20), range(20, 40)]
        assert dataset.var_mask.all()


# --- loaders ----------------------------------------------------------------------------------------------------------


def rows_of(loader: Any, wanted: dict[str, Any]) -> list[int]:
    seen: list[int] = []
    for batch in loader:
        check(batch, wanted, batch["index"])
        seen += batch["index"].tolist()
    return seen


def test_workers_resume_splits_and_blocks(path: Path) -> None:
    mdata = read(path)
    wanted = expected(mdata)
    dataset = AnnDataset(path, elem=ELEMS, cells="common", window=12, return_index=True)
    options: dict[str, Any] = {"batch_size": 5, "seed": 3, "block_size": "auto"}
    straight = rows_of(dataset.get_optimized_dataloader(**options), wanted)
    assert sorted(straight) == np.flatnonzero(wanted["rna_measured"] & wanted["prot_measured"]).tolist()
    assert rows_of(dataset.get_optimized_dataloader(num_workers=2, **options), wanted) == straight
    loader = dataset.get_optimized_dataloader(**options)
    seen, batches = [], iter(loader)
    for _ in range(2):
        seen += next(batches)["index"].tolist()
    state = loader.state_dict()
    again = dataset.get_optimized_dataloader(**options)
    again.load_state_dict(state)
    assert seen + rows_of(again, wanted) == straight
    parts = dataset.split({"train": 0.5, "test": 0.5}, stratify="rna:leiden", group_by="donor")
    found = [rows_of(part.get_optimized_dataloader(4, seed=0), wanted) for part in parts.values()]
    assert sorted(found[0] + found[1]) == sorted(straight)
    balanced = dataset.get_optimized_dataloader(5, balance="prot:leiden", seed=1)
    assert len(rows_of(balanced, wanted)) == len(dataset)


def test_ranks_share_the_cells(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    wanted = expected(read(path))
    for rank in range(2):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        dataset = AnnDataset(path, elem=ELEMS, return_index=True)
        mine = rows_of(dataset.get_optimized_dataloader(6, seed=0), wanted)
        assert len(mine) < len(wanted["rna"])
        seen += mine
    assert sorted(set(seen)) == list(range(len(wanted["rna"])))


def test_tokens_sets_and_preloading(path: Path) -> None:
    """What else a loader can do finds the same rows."""
    wanted = expected(read(path))
    elems = {"X": "mod/rna/X", "prot": "mod/prot/layers/clr"}
    tokens = AnnDataset(path, elem=elems, output=Tokens(length=12))[:].batch
    assert tokens["n_expressed"].tolist() == (wanted["rna"] > 0).sum(1).tolist()
    check(tokens, {"X_measured": wanted["rna_measured"]})
    for source in (path, read(path)):
        dataset = AnnDataset(source, elem=ELEMS, return_index=True)
        in_sets = dataset.get_optimized_dataloader(2, sets=CellSets(by=["donor"], size=5), seed=0)
        assert set(rows_of(in_sets, wanted)) == set(range(dataset.n_obs))
        straight = rows_of(dataset.get_optimized_dataloader(7, seed=0), wanted)
        dataset.preload()
        assert rows_of(dataset.get_optimized_dataloader(7, seed=0), wanted) == straight


# --- what is wrong ----------------------------------------------------------------------------------------------------


def repeated(stored: Any) -> Any:
    measured = np.flatnonzero(stored)
    stored[measured[4]] = stored[measured[1]]
    return stored


def swapped(stored: Any) -> Any:
    measured = np.flatnonzero(stored)
    stored[measured[[4, 1]]] = stored[measured[[1, 4]]]
    return stored


def lacking(stored: Any) -> Any:
    stored[np.flatnonzero(stored)[2]] = 0
    return stored


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda stored: stored[:-1], "has 39 values; expected 40, one for each row of 'obs'"),
        (lambda stored: np.where(stored == 3, 34, stored), r"is 34; expected 0 \(not measured\) to 33"),
        (lambda stored: np.where(stored == 3, -1, stored.astype(int)), r"is -1; expected 0"),
        (repeated, r"rows \d+ and \d+ of .*obsmap/rna' are both \d+; expected each row of 'mod/rna/obs' once"),
        (lacking, r"does not have row \d+ of 'mod/rna/obs' \(1 of 33 are lacking\)"),
        (swapped, r"says that row \d+ of 'obs', 'cell\d+', is row \d+ of 'mod/rna/obs', 'cell\d+'; expected the same"),
        (lambda stored: stored.astype(float), "is of float64"),
        (lambda stored: np.stack([stored, stored]), r"shape \(2, 40\)"),
    ],
)
def test_a_damaged_obsmap(path: Path, tmp_path: Path, edit: Any, found: str) -> None:
    bad = tmp_path / "bad.h5mu"
    bad.write_bytes(path.read_bytes())
    with h5py.File(bad, "r+") as file:
        stored = file["obsmap/rna"][()]
        del file["obsmap/rna"]
        file["obsmap/rna"] = edit(stored)
    for source in (bad, [path, bad]):
        with pytest.raises(FormatError, match=found) as caught:
            AnnDataset(source, elem=ELEMS)
        assert "bad.h5mu: 'obsmap/rna'" in str(caught.value)
    assert AnnDataset(bad, elem="mod/rna/X").shape == (33, 12)  # what does not concern a matrix does not matter


def test_modalities_that_there_are_not(path: Path) -> None:
    for source in (path, read(path)):
        with pytest.raises(UnknownNameError, match=r"no modality 'rma'.*Did you mean 'rna'"):
            AnnDataset(source, elem={"a": "mod/rma/X", "b": "mod/prot/X"})
        with pytest.raises(UnknownNameError, match="neither in a modality"):
            AnnDataset(source, elem={"a": "mod/rna/X", "b": "other/X"})
    with pytest.raises(UnknownNameError, match=r"MuData has no 'X'.*elem='mod/<modality>/X'.*'rna', 'prot'"):
        AnnDataset(read(path))
    with pytest.raises(UnknownNameError, match=r"modality 'prot' of MuData has no layers\['crl'\].*'clr'"):
        AnnDataset(read(path), elem="mod/prot/layers/crl")


def test_a_modality_that_is_a_mudata(path: Path) -> None:
    with as_new():
        nested = mudata.MuData({"in": read(path), "rna": read(path)["rna"]})
    with pytest.raises(TypeError, match=r"modality 'in' of MuData is a MuData; expected an AnnData"):
        AnnDataset(nested, elem={"a": "mod/in/X", "b": "mod/rna/X"})


def test_a_value_that_does_not_fit_is_told_with_its_matrix(path: Path) -> None:
    dataset = AnnDataset(path, elem={"a": "mod/rna/X", "b": "mod/prot/layers/clr"}, dtype=torch.int8)
    with pytest.raises(ValueError, match=r"^\S*cite\.h5mu: 'mod/prot/layers/clr': measured cells: column \d holds"):
        dataset[:]


def test_keys_that_collide(path: Path) -> None:
    with pytest.raises(ValueError, match=r"'rna_measured' batches hold both .* another matrix"):
        AnnDataset(path, elem={"rna": "mod/rna/X", "rna_measured": "mod/prot/X"})
    with pytest.raises(ValueError, match="the key 'obs_donor', under which"):
        AnnDataset(path, elem={"obs_donor": "mod/rna/X", "b": "mod/prot/X"})
    mdata = read(path)
    mdata.obs["x_measured"] = True
    with pytest.raises(ValueError, match=r"'obs_x_measured' batches hold both .* obs column 'x_measured'"):
        AnnDataset(mdata, elem={"obs_x": "mod/rna/X", "b": "mod/prot/X"})


def test_a_mudata_that_changes() -> None:
    def dataset() -> tuple[mudata.MuData, AnnDataset]:
        mdata = cite()
        return mdata, AnnDataset(mdata, elem=ELEMS)

    mdata, made = dataset()
    mdata.mod["rna"] = mdata["rna"].copy()
    with pytest.raises(StaleDataError, match="another modality 'rna' now"):
        made[0]
    mdata, made = dataset()
    mdata["rna"].obs_names = mdata["rna"].obs_names[::-1]
    with pytest.raises(StaleDataError, match="modality 'rna' of MuData has other cells"):
        made[0]
    mdata, made = dataset()
    mdata.obsmap["rna"] = np.roll(mdata.obsmap["rna"], 1)
    with pytest.raises(StaleDataError, match=r"obsmap\['rna'\] has changed"):
        made[0]
    # A modality that was filtered, without mdata.update().
    mdata = cite()
    mdata.mod["rna"] = mdata["rna"][:9].copy()
    with pytest.raises(FormatError, match=r"obsmap/rna.*mdata\.update\(\)"):
        AnnDataset(mdata, elem=ELEMS)
