"""Two files compared object by object, by h5py alone; and two AnnData objects, by pandas, numpy and scipy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import h5py
import hdf5plugin  # noqa: F401  (registers its filters with h5py)
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp


def refused_alike_or_read(one: Path, two: Path) -> tuple[anndata.AnnData, anndata.AnnData] | None:
    """Return what anndata reads of both files; None where it refuses the first, after checking that it refuses both."""
    try:
        first = anndata.read_h5ad(one)
    except Exception as error:
        with pytest.raises(type(error)):
            anndata.read_h5ad(two)
        return None
    return first, anndata.read_h5ad(two)


def assert_same_tree(one: Path, two: Path) -> None:
    """Compare all groups, datasets, links and attributes of two files: names, types, shapes and values."""
    with h5py.File(one) as a, h5py.File(two) as b:
        _same_group(a, b)


def _same_group(a: Any, b: Any) -> None:
    _same_attributes(a, b)
    assert list(a) == list(b), a.name
    for name in a:
        link = a.get(name, getlink=True)
        if isinstance(link, h5py.SoftLink):
            assert b.get(name, getlink=True).path == link.path
        elif isinstance(a[name], h5py.Group) and _is_csc(a[name]) and len(a[name]["data"]):
            _same_by_rows(a[name], b[name])
        elif isinstance(a[name], h5py.Group):
            _same_group(a[name], b[name])
        else:
            _same_attributes(a[name], b[name])
            assert _type(a[name].id.get_type()) == _type(b[name].id.get_type()), a[name].name
            assert a[name].shape == b[name].shape, a[name].name
            assert a[name].maxshape == b[name].maxshape, a[name].name
            if a[name].shape is not None and not h5py.check_ref_dtype(a[name].dtype):
                assert _equal(a[name][()], b[name][()]), a[name].name


def _is_csc(group: Any) -> bool:
    """Whether it is a matrix by columns, of those that are written by rows."""
    if group.name.startswith(("/uns", "/var")):
        return False
    encoding = group.attrs.get("encoding-type", group.attrs.get("h5sparse_format", ""))
    return (encoding.decode() if isinstance(encoding, bytes) else str(encoding)).startswith("csc")


def _same_by_rows(a: Any, b: Any) -> None:
    """Compare a matrix by columns with the same one by rows."""
    assert not _is_csc(b)
    assert sorted(a.attrs) == sorted(b.attrs)
    shape = tuple(a.attrs.get("shape", a.attrs.get("h5sparse_shape")))
    for name in ("data", "indices", "indptr"):
        assert _type(a[name].id.get_type()) == _type(b[name].id.get_type()), a[name].name
    expected = sp.csc_matrix((a["data"][()], a["indices"][()], a["indptr"][()]), shape).tocsr()
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(b[name][()], getattr(expected, name))


def _same_attributes(a: Any, b: Any) -> None:
    assert sorted(a.attrs) == sorted(b.attrs), a.name
    for name in a.attrs:
        one, two = a.attrs.get_id(name), b.attrs.get_id(name)
        assert _type(one.get_type()) == _type(two.get_type()) and one.shape == two.shape, (a.name, name)
        value, other = a.attrs[name], b.attrs[name]
        if isinstance(value, h5py.Reference):
            assert a.file[value].name == b.file[other].name
        elif not isinstance(value, h5py.Empty):
            assert _equal(value, other), (a.name, name)


def _type(datatype: Any) -> bytes:
    return bytes(datatype.encode())


def _equal(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.names:
        return all(_equal(a[name], b[name]) for name in a.dtype.names)
    if a.dtype.kind == "O":
        return all(_equal(x, y) if isinstance(x, np.ndarray) else x == y for x, y in zip(a.flat, b.flat, strict=True))
    return a.tobytes() == b.tobytes()


def assert_same_adata(a: Any, b: Any) -> None:
    """Compare two AnnData objects: each of their parts, with types and orders."""
    assert_same_part(a.X, b.X, "X")
    for part in ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns"):
        assert_same_part(getattr(a, part), getattr(b, part), part)
    assert (a.raw is None) == (b.raw is None)
    if a.raw is not None:
        assert_same_part(a.raw.X, b.raw.X, "raw/X")
        assert_same_part(a.raw.var, b.raw.var, "raw/var")


def assert_same_part(a: Any, b: Any, place: str) -> None:
    """Compare two parts of AnnData objects, and what is in them."""
    if a is None or isinstance(a, str | int | float | bool):
        assert type(a) is type(b) and a == b, place
    elif isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
    elif isinstance(a, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        pd.testing.assert_series_equal(pd.Series(a), pd.Series(b))
    elif sp.issparse(a):
        a = a.tocsr() if (a.format, b.format) == ("csc", "csr") else a
        assert (a.format, a.dtype, a.shape) == (b.format, b.dtype, b.shape), place
        for part in ("data", "indices", "indptr"):
            assert_same_part(getattr(a, part), getattr(b, part), f"{place}/{part}")
    elif hasattr(a, "keys") and not isinstance(a, np.ndarray):
        assert list(a) == list(b), place
        for name in a:
            assert_same_part(a[name], b[name], f"{place}/{name}")
    elif type(a).__module__.startswith("awkward"):
        assert a.to_list() == b.to_list(), place
    else:
        assert a.dtype == b.dtype, place
        np.testing.assert_array_equal(a, b, err_msg=place)
