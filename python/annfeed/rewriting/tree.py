"""What is in a file: which of it is written again, and how the rest is copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from annfeed.h5ad.file import text_of
from annfeed.h5ad.sparse import sparse_format

_NEIGHBOURS = ("uns/neighbors/connectivities", "uns/neighbors/distances")


def matrices(file: Any) -> Iterator[str]:
    """Return where matrices over cells lie in a file: X, raw/X, and what is in layers, obsm and obsp.

    Those of the modalities of a MuData, too. Matrices without elements are left out, as are DataFrames.
    """
    for prefix in ("", *(f"mod/{name}/" for name in _members(file, "mod"))):
        names = [f"{prefix}{name}" for name in ("X", "raw/X", "raw.X") if f"{prefix}{name}" in file]
        for group in ("layers", "obsm", "obsp"):
            names += [f"{prefix}{group}/{name}" for name in _members(file, f"{prefix}{group}")]
        # Where anndata before 0.7 had obsp.
        names += [name for name in _NEIGHBOURS if not prefix and name in file and sparse_format(file[name])]
        yield from (name for name in names if _is_matrix(file[name]))


def n_cells(file: Any) -> int:
    """Return the number of cells."""
    obs = file["obs"]
    if not hasattr(obs, "keys"):
        return len(obs)
    index = text_of(obs.attrs["_index"]) if "_index" in obs.attrs else next(iter(obs))
    names = obs[index]
    return len(names["values"] if hasattr(names, "keys") else names)


def cells_beside(file: Any, written: list[str]) -> Iterator[str]:
    """Return what else has a row for each cell, beside matrices that are ``written``: obs, and the rest of obsm.

    Sparse matrices without a value have no rows to move.
    """
    yield "obs"
    if "obsm" in file and not hasattr(file["obsm"], "keys"):  # one compound array, before anndata 0.7
        yield "obsm"
    names = [f"{group}/{name}" for group in ("layers", "obsm", "obsp") for name in _members(file, group)]
    yield from (name for name in names if name not in written and sparse_format(file[name]) is None)


def copy_tree(source: Any, target: Any, written: dict[str, Callable[[Any, str], None]], path: str = "") -> None:
    """Copy a group into another one, but for what is written again.

    Parameters
    ----------
    source, target
        Groups of two files.
    written
        By path in the file: what writes it, given the group it goes into and its name.
    path
        That of ``source``, with a slash at its end.
    """
    import h5py

    copy_attributes(source, target)
    for name in source:
        here = path + name
        link = source.get(name, getlink=True)
        if isinstance(link, h5py.SoftLink):
            target[name] = link
        elif here in written:
            written[here](target, name)
        elif any(place.startswith(here + "/") for place in written):
            order = source[name].id.get_create_plist().get_link_creation_order()
            group = target.create_group(name, track_order=bool(order))
            copy_tree(source[name], group, written, here + "/")
        else:
            source.copy(name, target, name, expand_external=True)


def copy_attributes(source: Any, target: Any) -> None:
    """Copy all attributes of an object as they are stored."""
    import h5py

    for name in source.attrs:
        old = source.attrs.get_id(name)
        if old.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            target.attrs[name] = source.attrs[name]
            continue
        value = np.empty(old.shape, old.dtype)
        # In the type of the file, so that nothing is converted; texts that lie elsewhere go through Python's objects.
        datatype = None if value.dtype.hasobject else old.get_type()
        old.read(value, mtype=datatype)
        new = h5py.h5a.create(target.id, name.encode(), old.get_type(), old.get_space())
        new.write(value, mtype=datatype)


def point_anew(source: Any, target: Any) -> None:
    """Let references in a copy of a file point to objects of the copy, as they pointed to those of the original."""
    import h5py

    def points(value: Any) -> Any:
        if isinstance(value, h5py.Reference):
            # One that points nowhere stays so.
            return target[source[value].name].ref if value else value
        found = np.empty(value.shape, value.dtype)
        found[...] = np.array([*map(points, value.flat), None], object)[:-1].reshape(value.shape)
        return found

    def visit(name: str, node: Any) -> None:
        for key in node.attrs:
            if h5py.check_ref_dtype(node.attrs.get_id(key).dtype) is h5py.Reference:
                value = node.attrs[key]
                target[name].attrs.create(key, points(value), dtype=h5py.ref_dtype)
        if isinstance(node, h5py.Dataset) and h5py.check_ref_dtype(node.dtype) is h5py.Reference and node.size:
            target[name][...] = points(node[()])

    visit("/", source)
    source.visititems(visit)


def _members(file: Any, group: str) -> list[str]:
    node = file.get(group)
    return list(node) if hasattr(node, "keys") else []


def _is_matrix(node: Any) -> bool:
    if sparse_format(node) is not None:
        arrays = [node[name] for name in ("data", "indices", "indptr")]
        numbers = all(array.dtype.kind in kinds for array, kinds in zip(arrays, ("biuf", "iu", "iu"), strict=True))
        return numbers and len(arrays[0]) > 0 and all(array.dtype.itemsize <= 8 for array in arrays)
    if hasattr(node, "keys") or node.ndim != 2 or node.dtype.kind not in "biuf":
        return False
    return bool(node.size) and node.dtype.itemsize <= 8
