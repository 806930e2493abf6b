"""Gene profiles of cell types, learnt from a real count file: what an atlas for benchmarks is drawn from.

By default the file is the one inside scanpy (PBMC 68k, reduced: 700 real cells, 765 genes, 10 types). Without scanpy
the profiles are drawn from lognormal distributions of about the same spread. Nothing is downloaded.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import scipy.sparse as sp

#: Spread (in log) of the genes that are made after a real one: real genes differ more than those in a reduced file.
GENE_SPREAD = 1.5
#: Share of genes that no cell shows, as in the annotations that atlases use.
SILENT = 0.25
#: Cell types where the file names none.
TYPES = 10


@dataclass(frozen=True)
class Profiles:
    """``shares`` [n_types, n_vars], each row summing to 1; ``weights`` [n_types], how common each type is."""

    names: list[str]
    weights: np.ndarray
    shares: np.ndarray


def load_profiles(base: Path | None, n_vars: int, rng: np.random.Generator) -> Profiles:
    """Return profiles of ``n_vars`` genes from the real file ``base``, or from scanpy's, or from a model."""
    if base is None and (spec := find_spec("scanpy")) is not None and spec.submodule_search_locations:
        base = Path(spec.submodule_search_locations[0]) / "datasets/10x_pbmc68k_reduced.h5ad"
    if base is None or not base.exists():
        print("no base file and no scanpy: profiles come from lognormal distributions")
        shares = np.exp(rng.normal(0, 2, 1000) + rng.normal(0, 1, (TYPES, 1000)))
        names, weights = [f"type {i}" for i in range(TYPES)], 1 / np.arange(1, TYPES + 1)
    else:
        names, weights, shares = _from_file(base, rng)
    shares = _widen(shares / shares.sum(1, keepdims=True), n_vars, rng)
    return Profiles(names, weights / weights.sum(), shares)


def _from_file(path: Path, rng: np.random.Generator) -> tuple[list[str], np.ndarray, np.ndarray]:
    import anndata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = anndata.read_h5ad(path)
    counts = _counts(adata.X if adata.raw is None else adata.raw.X)
    labels = [c for c in ("bulk_labels", "cell_type", "louvain", "leiden") if c in adata.obs]
    types = adata.obs[labels[0]].astype(str).to_numpy() if labels else _clusters(counts, rng)
    names, code = np.unique(types, return_inverse=True)
    sums = np.stack([np.asarray(counts[code == k].sum(0)).ravel() for k in range(len(names))])
    # A little of every gene in every type: rare is not impossible.
    sums += 0.05 * sums.sum(1, keepdims=True) * (sums.sum(0) / sums.sum())
    return list(names), np.bincount(code).astype(float), sums[:, sums.sum(0) > 0]


def _counts(x: sp.spmatrix | np.ndarray) -> sp.csr_matrix:
    """Counts as they were before normalisation: a row's least value was 1, and log1p is undone."""
    x = sp.csr_matrix(x).astype(np.float64)
    if np.array_equal(x.data, np.round(x.data)):
        return x
    x.data = np.expm1(x.data)
    for start, stop in zip(x.indptr, x.indptr[1:], strict=False):
        if stop > start:
            x.data[start:stop] = np.round(x.data[start:stop] / x.data[start:stop].min())
    return x


def _clusters(counts: sp.csr_matrix, rng: np.random.Generator) -> np.ndarray:
    from scipy.cluster.vq import kmeans2

    common = np.argsort(-np.asarray((counts > 0).sum(0)).ravel())[:1000]
    depth = np.maximum(np.asarray(counts.sum(1)), 1)
    logs = np.log1p(counts[:, common].toarray() / depth * 1e4)
    code = kmeans2(logs, TYPES, minit="points", rng=rng)[1]
    return np.array([f"cluster {k}" for k in code])


def _widen(shares: np.ndarray, n_vars: int, rng: np.random.Generator) -> np.ndarray:
    """Genes of the wide matrix: each after a random real one (its pattern over the types), stronger or weaker."""
    like = rng.integers(shares.shape[1], size=n_vars)
    strength = np.exp(rng.normal(0, GENE_SPREAD, n_vars)) * (rng.random(n_vars) >= SILENT)
    wide = shares[:, like] * strength
    return wide / wide.sum(1, keepdims=True)
