"""Opening a file with h5py, whatever else has it open: the one place that knows about HDF5's locks."""

from __future__ import annotations

import os
from typing import Any

from annfeed.errors import StaleFileError


def open_h5py(path: str) -> Any:
    """Return the `h5py.File` at ``path``, open for reading.

    Raises
    ------
    OSError
        If there is no such file, or h5py cannot open it.
    """
    import h5py

    failed: OSError | None = None
    # HDF5 refuses a file that the user has open in this process with another setting than ours. h5py's own comes first,
    # then none, for file systems without locks and for a writer elsewhere.
    for locking in (None, False, True, "best-effort"):
        try:
            return h5py.File(path, "r", locking=locking)
        except FileNotFoundError:
            raise FileNotFoundError(2, "there is no such file", path) from None
        except OSError as error:
            failed = failed or error
    assert failed is not None
    text = f"{path} cannot be opened as an HDF5 file: {failed}"
    raise (OSError(failed.errno, text) if failed.errno else OSError(text)) from failed


def check_not_replaced(file: Any) -> None:
    """Refuse an open `h5py.File` whose path is another file's by now: what is read by path would not be what it has.

    Raises
    ------
    StaleFileError
        If there is no file any more, or another one.
    """
    try:
        opened = os.fstat(file.id.get_vfd_handle())
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return  # a driver without a file descriptor, or no HDF5 file
    try:
        there = os.stat(file.filename)
    except OSError:
        there = None
    if there is None or (there.st_dev, there.st_ino) != (opened.st_dev, opened.st_ino):
        raise StaleFileError(
            f"{os.fsdecode(file.filename)}: found {'no file' if there is None else 'another file'} at the path of a "
            "backed AnnData; expected the one that it has open. Read the AnnData again"
        )
