"""NormalizeTotal beside a choice of genes: the total is over all genes, in scanpy's order (normalise, then choose)."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch
from tests.support import h5ad_files as h5ad

from annfeed import AnnDataset, Compose, Log1p, NormalizeTotal, Scale, Transform

N, GENES = 60, 40
PICKED = [31, 2, 17, 0]


def counts(dtype: str = "float32", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = (rng.poisson(1.5, (N, GENES)) * rng.integers(1, 9, GENES)).astype(dtype)
    if dtype.startswith("float"):
        x[10] *= 0.3
    x[7] = 0  # a cell without counts
    x[8, PICKED] = 0  # and one without any among the delivered genes
    return x


def by_scanpy(x: Any, target: float = 1e4, log: bool = True) -> np.ndarray:
    whole = anndata.AnnData(np.asarray(x.toarray() if sp.issparse(x) else x, np.float64))
    sc.pp.normalize_total(whole, target_sum=target)
    if log:
        sc.pp.log1p(whole)
    return np.asarray(whole.X)


class Label(Transform):
    """A step of a user's for items, which leaves X alone."""

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        return {**data_dict, "y": 1}


class BatchLabel(Label):
    batched = True


class Clip(Transform):
    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        return {**data_dict, "X": data_dict["X"].clamp(max=2)}


class ClipInPlace(Transform):
    batched = True

    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        values = data_dict["X"].values() if data_dict["X"].layout is torch.sparse_csr else data_dict["X"]
        values.numpy()[...] = np.minimum(values.numpy(), 2)  # torch does not count this as a change
        return data_dict


def write(folder: Path, kind: str, x: np.ndarray, dtype: Any = None) -> Any:
    """The matrix in every way in which rows are read, in files with values of ``dtype``."""
    path = folder / f"{kind.replace(' ', '_').replace(',', '')}.h5ad"
    compressed = h5ad.Storage(chunks=(64,), filters=h5ad.PIPELINES["gzip4"], resizable=1)
    csr = sp.csr_matrix(x)
    x = x if dtype is None else x.astype(dtype)
    if kind == "csr":
        return h5ad.write_h5ad(path, h5ad.Stored.of(csr, dtype=dtype), h5ad.Layout(compressed, compressed))
    if kind == "csr, uncompressed":
        return h5ad.write_h5ad(path, h5ad.Stored.of(csr, dtype=dtype))
    if kind == "csr, unsorted":
        stored = h5ad.Stored.of(csr, dtype=dtype)
        for a, b in zip(stored.indptr[:-1], stored.indptr[1:], strict=True):
            stored.indices[a:b], stored.data[a:b] = stored.indices[a:b][::-1].copy(), stored.data[a:b][::-1].copy()
        return h5ad.write_h5ad(path, stored, h5ad.Layout(compressed, compressed))
    if kind == "csc":
        return h5ad.write_h5ad(path, h5ad.Stored.of(csr.tocsc(), dtype=dtype), h5ad.Layout(compressed, compressed))
    if kind == "dense":
        return h5ad.write_h5ad(path, x, h5ad.Layout(h5ad.Storage(chunks=(7, 11), filters=h5ad.PIPELINES["gzip4"])))
    if kind == "dense, uncompressed":
        return h5ad.write_h5ad(path, x)
    if kind == "csr, h5py":
        return h5ad.write_h5ad(path, h5ad.Stored.of(csr, dtype=dtype), h5ad.Layout(data=h5ad.Storage(compact=True)))
    if kind == "csc, h5py":
        return h5ad.write_h5ad(
            path, h5ad.Stored.of(csr.tocsc(), dtype=dtype), h5ad.Layout(data=h5ad.Storage(compact=True))
        )
    if kind == "dense, h5py":
        return h5ad.write_h5ad(path, x, h5ad.Layout(h5ad.Storage(compact=True)))
    if kind == "csr in memory":
        return anndata.AnnData(csr)
    if kind == "csc in memory":
        return anndata.AnnData(csr.tocsc())
    assert kind == "dense in memory"
    return anndata.AnnData(x)


KINDS = [
    "csr",
    "csr, uncompressed",
    "csr, unsorted",
    "csc",
    "dense",
    "dense, uncompressed",
    "csr, h5py",
    "csc, h5py",
    "dense, h5py",
    "csr in memory",
    "csc in memory",
    "dense in memory",
]


def close(got: Any, wanted: np.ndarray, rtol: float = 2e-6) -> None:
    got = got.to_dense() if got.layout is torch.sparse_csr else got
    np.testing.assert_allclose(got.double().numpy().reshape(wanted.shape), wanted, rtol=rtol, atol=1e-30)


@pytest.mark.filterwarnings("ignore::annfeed.errors.AnnfeedWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_reading(kind: str, tmp_path: Path) -> None:
    x = counts("float32")
    source = write(tmp_path, kind, x)
    wanted = by_scanpy(x)[:, PICKED]
    rows = [59, 7, 8, 10, 10, 0]
    for steps in ([NormalizeTotal(), Log1p()], [Label(), NormalizeTotal(), Log1p()]):
        for output in ("dense", "csr"):
            for cache in (0, "1MiB"):
                options = {"var_subset": PICKED, "output": output, "cache": cache, "transform": Compose(steps)}
                if kind.startswith("csc") and cache == 0 and "memory" not in kind:
                    continue  # it has to be held
                dataset = AnnDataset(source, **options)
                close(dataset[8]["X"], wanted[8])
                close(dataset.__getitems__(rows).batch["X"], wanted[rows])
                for _ in range(2):
                    loader = dataset.get_optimized_dataloader(16, seed=3, return_index=True)
                    for batch in loader:
                        close(batch["X"], wanted[batch["index"].numpy()])
                again = pickle.loads(pickle.dumps(dataset))
                close(again.__getitems__(rows).batch["X"], wanted[rows])


@pytest.mark.filterwarnings("ignore::annfeed.errors.AnnfeedWarning")
@pytest.mark.parametrize("stored", ["int8", "uint16", "int32", "uint64", "float64", "bool", ">f4", ">i2", "float16"])
@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "dense, h5py", "dense in memory"])
def test_every_stored_dtype(kind: str, stored: str, tmp_path: Path) -> None:
    x = (counts() > 4) if stored == "bool" else counts("int16")
    source = write(tmp_path, kind, x, stored)
    got = AnnDataset(source, var_subset=PICKED, transform=NormalizeTotal()).__getitems__(range(N)).batch["X"]
    close(got, by_scanpy(x, log=False)[:, PICKED])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("output", ["dense", "csr"])
def test_every_delivered_dtype(dtype: torch.dtype, output: str, tmp_path: Path) -> None:
    x = counts("int16")
    source = write(tmp_path, "csr", x)
    dataset = AnnDataset(
        source, var_subset=PICKED, output=output, dtype=dtype, transform=Compose([NormalizeTotal(), Log1p()])
    )
    got = dataset.__getitems__(range(N)).batch["X"]
    assert got.dtype == (torch.float32 if dtype == torch.int32 else dtype)
    rtol = {torch.float64: 1e-12, torch.float16: 2**-10, torch.bfloat16: 2**-7}.get(dtype, 2e-6)
    close(got, by_scanpy(x)[:, PICKED], rtol)


@pytest.mark.parametrize("var_subset", [None, ["g1", "g3"]])
@pytest.mark.parametrize("join", ["inner", "outer"])
@pytest.mark.parametrize("in_memory", [False, True])
def test_of_several_files_all_genes_of_each(var_subset: Any, join: Any, in_memory: bool, tmp_path: Path) -> None:
    genes = [[f"g{i}" for i in range(5)], ["g3", "x", "g1", "y"], ["g4", "g3", "g2", "g1", "g0"]]
    rng = np.random.default_rng(1)
    adatas = [
        anndata.AnnData(
            sp.csr_matrix(rng.poisson(2.0, (6, len(names))).astype(np.float32)), var=pd.DataFrame(index=names)
        )
        for names in genes
    ]
    sources: list[Any] = adatas
    if not in_memory:
        sources = [tmp_path / f"{i}.h5ad" for i in range(3)]
        for adata, path in zip(adatas, sources, strict=True):
            adata.write_h5ad(path, compression="gzip")
    normalised = [anndata.AnnData(by_scanpy(a.X), var=a.var) for a in adatas]
    for transform in (Compose([NormalizeTotal(), Log1p()]), Compose([BatchLabel(), NormalizeTotal(), Log1p()])):
        dataset = AnnDataset(sources, join=join, var_subset=var_subset, transform=transform)
        whole = anndata.concat(normalised, join=join, fill_value=0)
        wanted = np.asarray(whole[:, dataset.var_names].X)
        close(dataset.__getitems__(range(18)).batch["X"], wanted)
        for batch in dataset.get_optimized_dataloader(5, seed=0, return_index=True):
            close(batch["X"], wanted[batch["index"].numpy()])


def test_a_view_is_added_up_over_the_genes_that_it_views(tmp_path: Path) -> None:
    x = counts()
    anndata.AnnData(sp.csr_matrix(x)).write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    viewed = np.arange(3, GENES, 2)
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    wanted = by_scanpy(x[:, viewed])
    for adata in (anndata.AnnData(sp.csr_matrix(x))[:, viewed], backed[:, viewed]):
        for columns in (None, [4, 1, 0]):
            dataset = AnnDataset(adata, var_subset=columns, transform=Compose([NormalizeTotal(), Log1p()]))
            picked = slice(None) if columns is None else columns
            close(dataset.__getitems__(range(N)).batch["X"], wanted[:, picked])
    backed.file.close()


@pytest.mark.parametrize("steps", [[], [Label()]], ids=["in Rust", "in torch"])
def test_over_delivered_is_the_sum_of_what_comes(steps: list[Transform], tmp_path: Path) -> None:
    x = counts()
    source = write(tmp_path, "csr", x)
    transform = Compose([*steps, NormalizeTotal(over="delivered")])
    wanted = by_scanpy(x[:, PICKED], log=False)
    close(AnnDataset(source, var_subset=PICKED, transform=transform).__getitems__(range(N)).batch["X"], wanted)


def test_parts_with_other_transforms_share_one_file(tmp_path: Path) -> None:
    x = counts()
    source = write(tmp_path, "csr", x)
    dataset = AnnDataset(source, var_subset=PICKED, cache="1MiB")
    first = dataset.__getitems__(range(N)).batch["X"]
    assert np.array_equal(first.numpy(), x[:, PICKED])
    one, other = dataset.subset(range(N)), dataset.subset(range(N))
    one.transform, other.transform = NormalizeTotal(), NormalizeTotal(over="delivered")
    for _ in range(2):
        close(one.__getitems__(range(N)).batch["X"], by_scanpy(x, log=False)[:, PICKED])
        close(other.__getitems__(range(N)).batch["X"], by_scanpy(x[:, PICKED], log=False))
        assert np.array_equal(dataset.__getitems__(range(N)).batch["X"].numpy(), x[:, PICKED])


def test_a_window_read_before_totals_were_asked_for_is_an_error(tmp_path: Path) -> None:
    dataset = AnnDataset(write(tmp_path, "csr", counts()), var_subset=PICKED)
    rows = dataset.reader.read(np.arange(5))["X"]
    with pytest.raises(ValueError, match=r"totals over all genes.*before the epoch"):
        rows.block.totals(rows.slots)
    # A window makes batches with what it was read for, and the next one with the transform of then.
    window = dataset.reader.load(np.arange(5))
    dataset.transform = NormalizeTotal()
    assert np.array_equal(window.batch(0, 5)["X"].numpy(), counts()[:5, PICKED])
    close(dataset.__getitems__(range(5)).batch["X"], by_scanpy(counts(), log=False)[:5, PICKED])


def test_totals_count_in_the_cache(tmp_path: Path) -> None:
    source = write(tmp_path, "csr", counts())
    held = {}
    for name, transform in {"without": None, "with": NormalizeTotal()}.items():
        with AnnDataset(source, var_subset=PICKED, cache="1MiB", transform=transform) as dataset:
            dataset.__getitems__(range(N))
            held[name] = dataset.stats()["cache_bytes"]
            dataset.__getitems__(range(N))
            assert dataset.stats()["cache_hits"] == N
    assert held["with"] == held["without"] + 8 * N


class Twice(NormalizeTotal):
    def __call__(self, data_dict: dict[str, Any]) -> dict[str, Any]:
        return super().__call__(super().__call__(data_dict))


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([Log1p(), NormalizeTotal()], r"NormalizeTotal.*comes after Log1p"),
        ([NormalizeTotal(), NormalizeTotal(5)], r"NormalizeTotal\(target_sum=5.0\) comes after NormalizeTotal"),
        ([Label(), Scale(np.zeros(4), np.ones(4)), NormalizeTotal()], "comes after Scale"),
        ([Twice()], "Twice with a __call__ of its own"),
    ],
)
def test_totals_that_cannot_be_known_are_an_error_at_once(steps: list[Transform], text: str, tmp_path: Path) -> None:
    source = write(tmp_path, "csr", counts())
    with pytest.raises(ValueError, match=text) as told:
        AnnDataset(source, var_subset=PICKED, transform=Compose(steps))
    assert "over='delivered'" in str(told.value)
    whole = AnnDataset(source, transform=Compose([s for s in steps if not isinstance(s, Scale)]))
    assert whole[0]["X"].shape == (GENES,)  # with all genes there is nothing that is not known


@pytest.mark.parametrize("step", [Clip(), ClipInPlace()], ids=repr)
@pytest.mark.parametrize("output", ["dense", "csr"])
@pytest.mark.parametrize("deliver", ["an item", "a loader", "read ahead"])
def test_a_users_step_that_changes_x_before_it_is_an_error(
    step: Transform, output: str, deliver: str, tmp_path: Path
) -> None:
    if output == "csr" and isinstance(step, Clip):
        step = ClipInPlace()
    ways: dict[str, Callable[[Any], Any]] = {
        "an item": lambda d: d[3],
        "a loader": lambda d: next(iter(torch.utils.data.DataLoader(d, 4, collate_fn=d.get_collate_fn()))),
        "read ahead": lambda d: next(iter(d.get_optimized_dataloader(4, seed=0))),
    }
    source = write(tmp_path, "csr", counts())
    dataset = AnnDataset(source, var_subset=PICKED, output=output, transform=Compose([step, NormalizeTotal()]))
    with pytest.raises(ValueError, match=r"changed X.*over='delivered'"):
        ways[deliver](dataset)
    ways[deliver](
        AnnDataset(
            source, var_subset=PICKED, output=output, transform=Compose([step, NormalizeTotal(over="delivered")])
        )
    )


def test_nan_in_x_is_no_change(tmp_path: Path) -> None:
    x = counts()
    x[3, PICKED[0]] = np.nan
    dataset = AnnDataset(
        write(tmp_path, "dense", x), var_subset=PICKED, transform=Compose([BatchLabel(), NormalizeTotal()])
    )
    got = dataset.__getitems__(range(N)).batch["X"].numpy()
    assert np.isnan(got[3]).all()
    close(torch.from_numpy(got[4:]), by_scanpy(x, log=False)[4:, PICKED])


def test_over_is_checked() -> None:
    with pytest.raises(ValueError, match="over is 'genes'"):
        NormalizeTotal(over="genes")  # type: ignore[arg-type]
