"""Twins of a file, made once: the same rows with X stored in another way, to compare ways of storing.

Only X, obs and var are in them, but for the rewritten one, which is what `annfeed.rewrite` makes. The rows of the dense
twin are the first ones of the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import scipy.sparse as sp

#: Rows of the dense twin at most, and its bytes.
DENSE_ROWS, DENSE_BYTES = 20_000, 2_500_000_000
#: Values copied at a time.
_STEP = 1 << 24


def twin_path(path: Path, folder: Path, stored: str) -> Path:
    """Where the twin of the file lies, made or not; ``stored`` is one of `MAKERS`."""
    return folder / f"{path.stem}-{stored.replace(' ', '-')}.h5ad"


def make_twin(path: Path, folder: Path, stored: str) -> Path:
    """Return the twin of the CSR file at ``path``, made if it is not there yet."""
    twin = twin_path(path, folder, stored)
    if twin.exists():
        return twin
    folder.mkdir(parents=True, exist_ok=True)
    print(f"making {twin.name}", flush=True)
    part = twin.with_name(f"{twin.name}.{os.getpid()}.part")
    MAKERS[stored](path, part)
    part.rename(twin)
    return twin


def _rewritten(path: Path, twin: Path) -> None:
    """What `annfeed.rewrite` makes by default."""
    from annfeed import rewrite

    rewrite(path, twin, progress=False)


def _filled_by(fill: Callable[[h5py.File, h5py.File], None]) -> Callable[[Path, Path], None]:
    def make(path: Path, twin: Path) -> None:
        with h5py.File(path) as source, h5py.File(twin, "w") as target:
            target.attrs.update(source.attrs)
            fill(source, target)

    return make


def _uncompressed(source: h5py.File, target: h5py.File) -> None:
    """CSR with the same chunks, and no filters."""
    for name in ("obs", "var"):
        source.copy(name, target)
    group = target.create_group("X")
    group.attrs.update(source["X"].attrs)
    for name, dataset in source["X"].items():
        new = group.create_dataset(name, dataset.shape, dataset.dtype, chunks=dataset.chunks)
        for start in range(0, len(dataset), _STEP):
            new[start : start + _STEP] = dataset[start : start + _STEP]


def _uncompressed_dense(source: h5py.File, target: h5py.File) -> None:
    """The first rows as one contiguous float32 array."""
    n_obs, n_vars = (int(n) for n in source["X"].attrs["shape"])
    n_rows = min(n_obs, DENSE_ROWS, DENSE_BYTES // (4 * n_vars))
    anndata.io.write_elem(target, "obs", anndata.io.read_elem(source["obs"]).iloc[:n_rows])
    source.copy("var", target)
    x = target.create_dataset("X", (n_rows, n_vars), np.float32)
    x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    indptr = source["X/indptr"][: n_rows + 1].astype(np.int64)
    step = max(1, _STEP // n_vars)
    for start in range(0, n_rows, step):
        stop = min(start + step, n_rows)
        values = slice(indptr[start], indptr[stop])
        parts = (source["X/data"][values], source["X/indices"][values], indptr[start : stop + 1] - indptr[start])
        x[start:stop] = sp.csr_matrix(parts, shape=(stop - start, n_vars)).toarray()


#: By the name that contenders give in ``stored``.
MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "uncompressed": _filled_by(_uncompressed),
    "uncompressed dense": _filled_by(_uncompressed_dense),
    "rewritten": _rewritten,
}
