"""A Cell Ranger file (10x Genomics) as an .h5ad file: obs and var as scanpy's reader makes them, the matrix as X."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from annfeed.arrays import Int64Array
from annfeed.h5ad.elem import Elem
from annfeed.h5ad.sparse import sparse_shape
from annfeed.inputs.source_var import obs_in_file, var_in_file

_PARTS = ("data", "indices", "indptr")


def write_tenx(
    path: str, node: Any, elem: Elem, unfinished: str, order: Int64Array | None, write: Callable[[Any, str], None]
) -> None:
    """Write all of a Cell Ranger file to a new .h5ad file.

    Parameters
    ----------
    path, elem
        The file, and where its matrix lies.
    node
        The group of the matrix.
    unfinished
        Path of the new file.
    order
        int64, the old row of each new one; None where they keep theirs.
    write
        Writes the matrix, given a group and a name in it.
    """
    import anndata
    import h5py
    import scipy.sparse as sp
    from anndata.io import write_elem

    obs, var = obs_in_file(path, elem, None).frame(), var_in_file(path, elem, None).frame()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*names are not unique", UserWarning)
        anndata.AnnData(obs=obs if order is None else obs.iloc[order], var=var).write_h5ad(unfinished)
    with h5py.File(unfinished, "r+") as new:
        if "X" in new:
            del new["X"]
        shape = sparse_shape(node)
        if not len(node["data"]):  # nothing to cut into chunks
            write_elem(new, "X", sp.csr_matrix(shape, dtype=node["data"].dtype))
            return
        write(new, "X")
        for written in (new["X"], *(new["X"][part] for part in _PARTS)):
            for name in list(written.attrs):  # of PyTables, with which Cell Ranger 2 wrote
                del written.attrs[name]
        new["X"].attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
