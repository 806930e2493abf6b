"""Adds a value to an .h5ad file in place, with anndata's own writer: whole or not at all.

The value is written under another name, flushed, and gets its own name last; what it replaces goes after that.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import Any

from annfeed.h5ad.file import text_of
from annfeed.h5ad.identity import own_write
from annfeed.results.destinations import Where, already_there, check_frame

#: Where a value lies until it is whole.
UNFINISHED = ".annfeed-unfinished"
#: Before the name of one that is replaced, until the new one has that name.
REPLACED = ".annfeed-replaced."
#: Bytes that must be free beside those of the value.
_SLACK = 1 << 20


def write_value(path: str, prefix: str, where: Where, key: str, value: Any, overwrite: bool) -> None:
    """Write ``value`` to ``obsm`` or as a column of ``obs``; after an OSError what was in the file is as it was.

    ``prefix`` is of the group in it: "", or "mod/rna/". ``overwrite`` replaces a value that is there.
    """
    elem = f"{prefix}{where}/{key}"
    name = f"'{elem}'"
    n_bytes = _bytes_of(value)
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
    if free < n_bytes + _SLACK:
        raise OSError(28, f"{n_bytes} bytes to write and {free} free on the disk; the file is as it was", path)
    with own_write(path, elem), _open(path) as file:
        from anndata.io import write_elem

        if f"{prefix}{where}" not in file:
            write_elem(file, f"{prefix}{where}", {})
        group = file[f"{prefix}{where}"]
        if where == "obs":
            check_frame(path, group, key)
        _clear(group)
        was_there = key in group
        if was_there and not overwrite:
            raise ValueError(already_there(f"{path}: {name}"))
        try:
            write_elem(group, UNFINISHED, value)
            # To the disk, so that it is there before the old one goes.
            file.flush()
            if was_there:
                group.move(key, REPLACED + key)
            group.move(UNFINISHED, key)
            if where == "obs":
                _add_to_order(group, key)
            if was_there:
                del group[REPLACED + key]
        except Exception as error:
            with suppress(Exception):
                if not was_there and key in group:
                    del group[key]
                _clear(group, key)
            raise OSError(
                f"{path}: {name} could not be written ({error}); what was in the file before is as it was"
            ) from error


def _clear(group: Any, undone: str | None = None) -> None:
    """Take away what is left of a write that did not end, and put back what it was about to replace.

    Of ``undone`` the old value is the right one, even if the new one has its name.
    """
    if UNFINISHED in group:
        del group[UNFINISHED]
    for name in [name for name in group if name.startswith(REPLACED)]:
        key = name.removeprefix(REPLACED)
        if key == undone and key in group:
            del group[key]
        if key in group:
            del group[name]
        else:
            group.move(name, key)


def _add_to_order(group: Any, column: str) -> None:
    order = [text_of(name) for name in group.attrs["column-order"]]
    if column not in order:
        group.attrs["column-order"] = [*order, column]


def _bytes_of(value: Any) -> int:
    if hasattr(value, "memory_usage"):  # pandas; of text its places, which come near to what is written
        used = value.memory_usage()
        return int(used if isinstance(used, int) else used.sum())
    return int(value.nbytes)


def _open(path: str) -> Any:
    import h5py

    elsewhere = (
        f"{path} is open elsewhere, where nobody else may have it to write. Close it there (a backed AnnData: "
        "adata.file.close()), or write after it is done"
    )
    try:
        file = h5py.File(path, "r+", locking="best-effort")
    except PermissionError:
        raise
    except OSError as error:
        # HDF5 tells in words alone.
        if isinstance(error, BlockingIOError) or "lock" in str(error) or "already open" in str(error):
            raise OSError(error.errno or 11, f"{elsewhere} ({error})") from error
        raise OSError(f"{path} cannot be opened for writing: {error}") from error
    # HDF5's locks are of a process: a second handle in this one shares the first's.
    if h5py.h5f.get_obj_count(file.id, h5py.h5f.OBJ_FILE) > 1:
        file.close()
        raise OSError(11, f"{elsewhere}: it is open in this process")
    return file
