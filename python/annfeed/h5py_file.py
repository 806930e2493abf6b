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

    try:
        # With h5py's own locking: HDF5 refuses a file that the user has open in this process with another setting.
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise FileNotFoundError(2, "there is no such file", path) from None
    except OSError as error:
        try:
            return h5py.File(path, "r", locking=False)  # a file system without locks, or a writer elsewhere
        except OSError:
            text = f"{path} cannot be opened as an HDF5 file: {error}"
            raise (OSError(error.errno, text) if error.errno else OSError(text)) from error
