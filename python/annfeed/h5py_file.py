"""Opening a file with h5py, whatever else has it open: the one place that knows about HDF5's locks."""

from __future__ import annotations

from typing import Any


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
