"""`elem_in`: the place that ``elem=`` means in a file, which has to be looked up: Cell Ranger's files have others."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from annfeed.errors import UnknownNameError
from annfeed.h5ad.elem import Elem
from annfeed.h5ad.file import open_h5py
from annfeed.h5ad.tenx import find_tenx


def elem_in(path: str | bytes | os.PathLike[Any], elem: Elem) -> Elem:
    """Return the place ``elem`` in the file at ``path``: of Cell Ranger's files, the group of the matrix.

    Raises
    ------
    UnknownNameError
        If a Cell Ranger file has no such matrix, or several and ``elem`` does not choose; or if another file can have
        none of this name.
    """
    if elem.tenx is not None:
        return elem
    where = os.path.expanduser(os.fsdecode(path))
    try:
        with open_h5py(where) as file:
            found = find_tenx(file)
    except (OSError, ValueError):
        if elem.var == "":
            raise
        return elem  # what reads it tells what is wrong
    if not found:
        elem.check()
        return elem
    chosen = [one for one in found if one.group == elem.path] or (found if elem.path == "X" else [])
    groups = "', '".join(one.group for one in found)
    if len(chosen) > 1:
        raise UnknownNameError(
            f"{where}: found the matrices of {len(found)} genomes in a Cell Ranger file (10x Genomics): '{groups}'; "
            f"expected elem= to choose one. Pass elem={found[0].group!r}"
        )
    if not chosen:
        raise UnknownNameError(
            f"{where}: found no {elem.path!r} in a Cell Ranger file (10x Genomics), which has counts alone; expected "
            f"elem='X', or '{groups}'. annfeed.rewrite makes an .h5ad file of it, to which layers can be added"
        )
    return replace(elem, path=chosen[0].group, obs=chosen[0].cells, var=chosen[0].features, tenx=chosen[0])
