"""Batches of tokens are those of a plain numpy twin, and of the published definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.batches.token_twin import check_batch, digits
from tests.support.atlas import adata_of
from tests.support.atlas import write as write_atlas
from tests.support.toys import write

from annfeed import AnnDataset, Log1p, NormalizeTotal, Tokens, Transform

N_VARS = 30


def counts(n_obs: int = 12, n_vars: int = N_VARS, most: int = 400, seed: int = 0) -> np.ndarray:
    """Counts with ties, a cell without any, a cell with all genes, and large ones."""
    rng = np.random.default_rng(seed)
    x = rng.integers(1, 6, (n_obs, n_vars)) * (rng.random((n_obs, n_vars)) < 0.6)
    x[rng.random((n_obs, n_vars)) < 0.1] = most
    x[0], x[1] = 0, rng.integers(1, 4, n_vars)
    return x


def adata_with(x: Any) -> anndata.AnnData:
    return anndata.AnnData(x, var=pd.DataFrame(index=[f"gene{j}" for j in range(x.shape[1])]))


scales = st.sampled_from([
    None,
    {f"gene{j}": 0.25 + 0.37 * (j % 5) for j in range(0, N_VARS, 2)},
    np.linspace(0.3, 4.1, N_VARS),
])  # fmt: skip
options = st.fixed_dictionaries({
    "length": st.integers(9, N_VARS + 12),
    "choose": st.sampled_from(["top", "random", "weighted", "first"]),
    "order": st.sampled_from(["value", "gene", "random"]),
    "values": st.sampled_from(["counts", "normalized", "log1p", "binned", "rank"]),
    "target_sum": st.sampled_from([1e4, 1.0]),
    "bins": st.sampled_from([3, 4, 6, 18, 34]),
    "scale": scales,
    "vocabulary": st.sampled_from([None, {f"gene{j}": 1000 - j for j in range(0, N_VARS, 3)} | {"other": 5}]),
    "zeros": st.integers(0, 7),
    "pad_id": st.sampled_from([0, -7]),
    "pad_value": st.sampled_from([0.0, -2.0]),
    "cls_id": st.sampled_from([None, 60_000]),
    "pad_to": st.sampled_from(["longest", "length"]),
})  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    options=options, seed=st.integers(0, 5), dtype=st.sampled_from(["u1", "u2", "i4", "f4", "f8"]), dense=st.booleans()
)
def test_every_option_is_the_twins(options: dict[str, Any], seed: int, dtype: str, dense: bool) -> None:
    x = counts(most=200 if dtype == "u1" else 400, seed=seed)
    x = x / 8 if dtype[0] == "f" and seed % 2 else x
    x = x.astype(dtype)
    tokens = Tokens(**options)
    dataset = AnnDataset(adata_with(x if dense else sp.csr_matrix(x)), output=tokens, return_index=True, threads=1)
    batch = next(iter(dataset.get_optimized_dataloader(12, seed=seed)))
    rows = batch["index"].numpy()
    check_batch(batch, x[rows], tokens, rows, seed=seed)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_files_layers_and_selected_genes(tmp_path: Path, kind: str) -> None:
    make: Any = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}[kind]
    x = counts().astype("float32")
    adata = adata_with(make(x))
    adata.layers["double"] = make(x * 2)
    path = write(adata, tmp_path / "a.h5ad")
    wanted = [7, 2, 20, 11, 3]
    tokens = Tokens(length=4, values="log1p", vocabulary={f"gene{j}": j for j in (2, 3, 7, 20)}, zeros=1, cls_id=99)
    for source, elem, factor in [(path, "X", 1), (path, "layers/double", 2), (adata, "layers/double", 2)]:
        dataset = AnnDataset(
            source, elem=elem, var_subset=wanted, output=tokens, obs_subset=[5, 1, 0, 8], dtype=torch.float32
        )
        rows, names = np.array([5, 1, 0, 8]), [f"gene{j}" for j in wanted]
        check_batch(dataset.head(), factor * x[rows][:, wanted], tokens, rows, all_genes=factor * x[rows], names=names)


def test_joined_files(tmp_path: Path) -> None:
    paths = write_atlas(tmp_path, "abc")
    tokens = Tokens(
        length=4, choose="random", values="normalized", zeros=1, vocabulary={f"gene{j}": j for j in range(11)}
    )
    for join in ("inner", "outer"):
        dataset = AnnDataset(paths, join=join, output=tokens, return_index=True, obs_columns=[])
        whole = anndata.concat([adata_of(name) for name in "abc"], join=join, fill_value=0)
        full = [np.asarray(a.X.todense() if sp.issparse(a.X) else a.X, dtype="float64") for a in map(adata_of, "abc")]
        totals = np.concatenate([each.sum(1) for each in full])[:, None]
        x = whole[:, dataset.var_names].X
        x = np.asarray(x.todense() if sp.issparse(x) else x)
        batch = next(iter(dataset.get_optimized_dataloader(90, seed=3)))
        rows = batch["index"].numpy()
        check_batch(batch, x[rows], tokens, rows, all_genes=totals[rows], names=list(dataset.var_names), seed=3)


# --- published definitions -------------------------------------------------------------------------------------------


def test_geneformers_rank_value_encoding() -> None:
    """Counts over the cell's total times 10,000, over the gene's median, falling, cut to the length."""
    rng = np.random.default_rng(1)
    x = rng.poisson(1.5, (20, 300)).astype("float32")
    medians = {f"gene{j}": float(m) for j, m in enumerate(rng.lognormal(size=300)) if j % 7}
    vocabulary = {gene: 2 + i for i, gene in enumerate(medians)}
    tokens = Tokens(length=64, scale=medians, vocabulary=vocabulary, values="normalized", pad_to="length")
    batch = AnnDataset(adata_with(sp.csr_matrix(x)), output=tokens).head(20)
    measured = np.array([j for j in range(300) if j % 7])
    norm = np.array(list(medians.values()))
    ids = np.array(list(vocabulary.values()))
    for i, cell in enumerate(x.astype("float64")):
        value = cell[measured] / cell.sum() * 10_000 / norm
        best = np.argsort(-value)[: np.count_nonzero(value)][:64]
        assert batch["genes"][i].tolist() == ids[best].tolist()
        np.testing.assert_allclose(batch["values"][i].numpy(), value[best], rtol=1e-6)


def test_scgpts_input() -> None:
    """<cls>, then a random subset of expressed genes, with values binned into quantiles of the cell's non-zeros."""
    rng = np.random.default_rng(2)
    x = rng.poisson(3, (40, 400)).astype("float32") * (rng.random((40, 400)) < 0.6)
    tokens = Tokens(
        length=100, choose="random", order="random", values="binned", bins=51, cls_id=400, pad_id=401, pad_value=-2
    )
    batch = AnnDataset(adata_with(x), output=tokens, return_index=True).head(40)
    assert (batch["genes"][:, 0] == 400).all() and (batch["values"][:, 0] == 0).all()
    subsets = set()
    for i, cell in enumerate(x):
        nonzero = np.flatnonzero(cell)
        genes, bins = batch["genes"][i, 1:].numpy(), batch["values"][i, 1:].numpy()
        assert len(set(genes)) == 99 and set(genes) <= set(nonzero)
        subsets.add(tuple(sorted(genes)))
        if (len(nonzero) - 1) % 7 == 0:
            continue  # a quantile falls on a value, and numpy's floats may miss it
        logs = np.log1p(cell / cell.sum() * 1e4)
        low, high = digits(logs[nonzero].astype("float64"), 51)
        place = np.searchsorted(nonzero, genes)
        low, high = low[place], high[place]
        assert (bins >= np.minimum(low + 1, high)).all() and (bins <= high).all()
    assert len(subsets) == 40
    assert len(np.unique(batch["values"])) > 40  # values of one count are spread over bins


# --- the same draws everywhere ---------------------------------------------------------------------------------------

DRAWN = Tokens(length=8, choose="random", order="random", values="binned", zeros=2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(adata_with(sp.csr_matrix(counts(40).astype("float32"))), tmp_path / "counts.h5ad")


def by_row(batches: Any) -> dict[int, tuple[Any, ...]]:
    """The tokens of each row."""
    found = {}
    for batch in batches:
        for i, row in enumerate(batch["index"].tolist()):
            mask = batch["mask"][i]
            found[row] = (batch["genes"][i][mask].tolist(), batch["values"][i][mask].tolist())
    return found


def open_drawn(path: Any, **options: Any) -> AnnDataset:
    return AnnDataset(path, output=DRAWN, return_index=True, **{"window": 16, **options})


def test_tokens_depend_on_seed_epoch_and_row_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = open_drawn(path, threads=1).get_optimized_dataloader(8, seed=5)
    epochs = [by_row(loader) for _ in range(2)]
    assert epochs[0].keys() == epochs[1].keys() == set(range(40))
    assert sum(epochs[0][row] != epochs[1][row] for row in range(40)) > 35
    for threads, batch_size, others in [(2, 3, {}), (4, 40, {"prefetch_batches": 0}), (2, 7, {"block_size": 4})]:
        again = open_drawn(path, threads=threads, window=9).get_optimized_dataloader(batch_size, seed=5, **others)
        assert [by_row(again) for _ in range(2)] == epochs
    part = open_drawn(path, obs_subset=[30, 2, 17]).get_optimized_dataloader(2, seed=5)
    assert by_row(part) == {row: epochs[0][row] for row in (30, 2, 17)}
    of_ranks: dict[int, Any] = {}
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        of_ranks |= by_row(open_drawn(path).get_optimized_dataloader(4, seed=5))
    assert of_ranks == epochs[0]


def test_rows_that_are_drawn_twice_have_the_same_tokens(path: Path) -> None:
    batch = next(iter(open_drawn(path).get_optimized_dataloader(6, seed=1, order=lambda epoch: [7, 3, 7, 7, 3, 7])))
    for i in range(2, 6):
        twin = batch["index"].tolist().index(int(batch["index"][i]))
        assert torch.equal(batch["genes"][i], batch["genes"][twin])


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_make_the_same_tokens(path: Path, persistent: bool) -> None:
    here = open_drawn(path).get_optimized_dataloader(8, seed=5)
    there = open_drawn(path).get_optimized_dataloader(8, seed=5, num_workers=2, persistent_workers=persistent)
    for _ in range(2):
        for ours, theirs in zip(here, there, strict=True):
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_resumed_epoch_goes_on_with_the_same_tokens(path: Path) -> None:
    for settings_ in ({"seed": 5}, {}, {"order": lambda epoch: range(39, -1, -1)}, {"shuffle": False}):
        loader = open_drawn(path).get_optimized_dataloader(8, **settings_)
        list(loader)
        batches = iter(loader)
        next(batches)
        state, rest = loader.state_dict(), by_row(batches)
        again = open_drawn(path).get_optimized_dataloader(8, **settings_)
        again.load_state_dict(state)
        assert by_row(again) == rest


def test_items_and_predictions_draw_as_in_epoch_0_of_the_seed_0(path: Path) -> None:
    dataset = open_drawn(path)
    wanted = by_row(dataset.get_optimized_dataloader(8, seed=0))
    assert by_row([dataset.head(40)]) == wanted
    item = dataset[11]
    assert by_row([{key: value[None] for key, value in item.items()}]) == {11: wanted[11]}
    for loader in (
        dataset.predict_loader(7),
        dataset.predict_loader(7, seed=0),
        torch.utils.data.DataLoader(dataset, 8, shuffle=True, collate_fn=dataset.get_collate_fn()),
        torch.utils.data.DataLoader(dataset, 8),
    ):
        assert by_row(loader) == wanted
        assert by_row(loader) == wanted  # in each epoch


def test_loaders_in_file_order_draw_anew_in_each_epoch(path: Path) -> None:
    dataset = open_drawn(path)
    seeded = dataset.get_optimized_dataloader(8, seed=0)
    epochs = [by_row(seeded) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    for options in ({"seed": 0}, {}, {"num_workers": 1}):
        loader = dataset.get_optimized_dataloader(8, shuffle=False, **options)
        assert [by_row(loader) for _ in range(3)] == epochs
    loader = dataset.get_optimized_dataloader(8, shuffle=False)
    loader.sampler.set_epoch(2)
    assert by_row(loader) == epochs[2]


def test_a_sampler_of_the_users_gives_new_tokens_each_epoch(path: Path) -> None:
    dataset = open_drawn(path)
    sampler = torch.utils.data.SequentialSampler(range(40))
    loader = dataset.get_optimized_dataloader(8, sampler=sampler, seed=5)
    seeded = dataset.get_optimized_dataloader(8, seed=5)
    assert [by_row(loader) for _ in range(2)] == [by_row(seeded) for _ in range(2)]


# --- beside other things ---------------------------------------------------------------------------------------------


class Mask(Transform):
    batched = True

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        return {**data_dict, "values": data_dict["values"].masked_fill(data_dict["mask"], -1)}


class PerItem(Transform):
    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        return {"n": data_dict["mask"].sum()}


def test_transforms_get_tokens(path: Path) -> None:
    batch = AnnDataset(path, output=Tokens(length=8), transform=Mask()).head(6)
    assert batch["values"][1].tolist() == [-1] * 8
    batch = AnnDataset(path, output=Tokens(length=8), transform=PerItem()).head(6)
    assert batch["n"].tolist() == AnnDataset(path, output=Tokens(length=8)).head(6)["mask"].sum(1).tolist()
    for step, values in ((NormalizeTotal(), "normalized"), (Log1p(), "log1p")):
        with pytest.raises(ValueError, match=rf"works on X, with output=Tokens.*Pass Tokens\(values='{values}'\)"):
            AnnDataset(path, output=Tokens(), transform=step)
        dataset = AnnDataset(path, output=Tokens())
        dataset.transform = step
        with pytest.raises(ValueError, match="works on X"):
            dataset.head()


def test_items_of_different_lengths_are_padded(path: Path) -> None:
    tokens = Tokens(length=40, pad_id=-1, pad_value=-2)
    dataset = AnnDataset(path, output=tokens, return_index=True)
    rows = [0, 4, 1, 7]
    items = [dataset[row] for row in rows]
    assert len({len(item["genes"]) for item in items}) > 2
    batch = dataset.get_collate_fn()(items)
    x = anndata.read_h5ad(path).X.toarray()
    check_batch(batch, x[rows], tokens, rows)
    assert batch["index"].tolist() == rows


def test_other_matrices_are_dense(path: Path) -> None:
    adata = anndata.read_h5ad(path)
    adata.obsm["X_pca"] = np.arange(80, dtype="float32").reshape(40, 2)
    tokens = Tokens(length=5, values="log1p")
    for elem in ({"X": "X", "pca": "obsm/X_pca"}, {"rna": "X", "pca": "obsm/X_pca"}):
        batch = AnnDataset(adata, elem=elem, output=tokens, dtype=torch.float64).head(4)
        assert set(batch) == {"genes", "values", "mask", "n_expressed", "pca"}
        assert batch["pca"].tolist() == adata.obsm["X_pca"][:4].tolist() and batch["pca"].dtype == torch.float64
        check_batch(batch, adata.X.toarray()[:4], tokens, range(4))
    with pytest.raises(ValueError, match="the key 'mask', under which batches hold tokens"):
        AnnDataset(adata, elem={"X": "X", "mask": "obsm/X_pca"}, output=tokens)


def test_var_column_names_the_genes(path: Path, tmp_path: Path) -> None:
    adata = anndata.read_h5ad(path)
    adata.var["symbol"] = [f"S{j}" for j in range(N_VARS)]
    tokens = Tokens(vocabulary={"S3": 30, "S5": 50}, order="gene")
    for source in (adata, write(adata, tmp_path / "symbols.h5ad")):
        for subset, found in ((None, {30, 50}), (["S5", "S9"], {50})):
            batch = AnnDataset(source, output=tokens, var_column="symbol", var_subset=subset).head(40)
            assert set(batch["genes"][batch["mask"]].tolist()) == found


def test_the_output_may_be_set_later(path: Path) -> None:
    dataset = AnnDataset(path)
    dataset.output = Tokens(length=3, values="log1p")
    assert dataset.head(2)["genes"].shape == (2, 3)
    dataset.output = "dense"
    assert dataset.head(2)["X"].shape == (2, N_VARS)


def test_preloaded_rows_have_the_same_tokens(path: Path) -> None:
    tokens = Tokens(length=8, choose="random", values="log1p", zeros=1)
    rows, genes = [4, 9, 2], list(range(0, N_VARS, 2))
    wanted = AnnDataset(path, output=tokens, obs_subset=rows, var_subset=genes).head(3)
    dataset = AnnDataset(path, output=tokens, obs_subset=rows, var_subset=genes).preload()
    found = dataset.head(3)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    with pytest.raises(ValueError, match="kept on a device, with output=Tokens; expected them in the host's memory"):
        dataset.reader.preload(torch.device("cpu"))
    on_device = AnnDataset(path)
    on_device.reader.preload(torch.device("cpu"))
    on_device.output = tokens
    with pytest.raises(ValueError, match="kept on a device, with output=Tokens"):
        on_device.head(2)


def test_stored_zeros_are_not_expressed() -> None:
    x = sp.csr_matrix((np.array([0, 2, 0, 1], "float32"), [0, 1, 2, 4], [0, 3, 4]), shape=(2, 5))
    batch = AnnDataset(anndata.AnnData(x), output=Tokens()).head()
    assert batch["genes"].tolist() == [[1], [4]] and batch["n_expressed"].tolist() == [1, 1]


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-1.5, np.nan, np.inf, 1e300])
@pytest.mark.parametrize("dense", [True, False])
def test_what_is_no_expression_is_refused(wrong: float, dense: bool) -> None:
    x = counts().astype("float64")
    x[3, 9] = wrong
    dataset = AnnDataset(adata_with(x if dense else sp.csr_matrix(x)), output=Tokens())
    assert dataset[2]["genes"].shape
    with pytest.raises(
        ValueError, match=r"AnnData: 'X': row 3, gene .gene9. is .*; expected numbers of 0 or more that are finite"
    ):
        dataset.head(6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"length": 0}, ValueError, "length is 0"),
        ({"length": 2.5}, TypeError, "length is 2.5"),
        ({"choose": "best"}, ValueError, "choose is 'best'; expected one of"),
        ({"order": None}, ValueError, "order is None"),
        ({"values": "raw"}, ValueError, "values is 'raw'"),
        ({"pad_to": 8}, ValueError, "pad_to is 8"),
        ({"target_sum": 0}, ValueError, "target_sum is 0"),
        ({"target_sum": "many"}, TypeError, "target_sum is 'many'"),
        ({"target_sum": "1e4"}, TypeError, "target_sum is '1e4'"),
        ({"target_sum": True}, TypeError, "target_sum is True"),
        ({"bins": 2}, ValueError, "bins is 2"),
        ({"zeros": -1}, ValueError, "zeros is -1"),
        ({"length": 5, "zeros": 4, "cls_id": 0}, ValueError, "length is 5, of which zeros and cls_id take 5"),
        ({"pad_id": "x"}, TypeError, "pad_id is 'x'"),
        ({"cls_id": 1.0}, TypeError, "cls_id is 1.0"),
        ({"pad_value": None}, TypeError, "pad_value is None"),
        ({"scale": {"gene1": 0.0}}, ValueError, "scale of 'gene1' is 0.0"),
        ({"scale": [1.0, np.nan]}, ValueError, "scale of column 1 is nan"),
        ({"scale": ["a"]}, TypeError, "scale has"),
        ({"scale": 2.0}, TypeError, "scale is 2.0"),
        ({"scale": {"gene1": "2"}}, TypeError, "scale\\['gene1'\\] is '2'"),
        ({"scale": {}}, ValueError, "scale is empty"),
        ({"vocabulary": {}}, ValueError, "vocabulary is empty"),
        ({"vocabulary": ["gene1"]}, TypeError, "vocabulary is a list"),
        ({"vocabulary": {"gene1": "a"}}, TypeError, "vocabulary\\['gene1'\\] is 'a'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"Tokens: {message}"):
        Tokens(**arguments)


def test_what_does_not_fit_the_matrix_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="scale has 2 numbers; expected 30"):
        AnnDataset(path, output=Tokens(scale=[1.0, 2.0]))
    with pytest.raises(ValueError, match=r"no gene is left by vocabulary: found genes 'gene0', .*pass var_column="):
        AnnDataset(path, output=Tokens(vocabulary={"CD4": 1}))
    with pytest.raises(ValueError, match="no gene is left by scale"):
        AnnDataset(path, output=Tokens(vocabulary={"gene1": 1}, scale={"gene2": 1.0}))
    with pytest.raises(ValueError, match=r"dtype is torch.float16; expected torch.float32"):
        AnnDataset(path, output=Tokens(), dtype=torch.float16)
    with pytest.raises(ValueError, match="output is 'tokens'; expected one of"):
        AnnDataset(path, output="tokens")


def test_a_series_is_as_a_dict() -> None:
    by_gene = {"gene1": 2.0, "gene2": 4.0}
    tokens = Tokens(scale=pd.Series(by_gene), vocabulary=pd.Series({"gene1": 7}))
    assert tokens.scale == by_gene and tokens.vocabulary == {"gene1": 7}
    assert repr(tokens) == "Tokens(scale=<2 genes>, vocabulary=<1 genes>)"
