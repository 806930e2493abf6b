"""Opens files with h5py, and turns HDF5's errors into annfeed's.

rust/h5/open.rs raises the same classes of errors for the same faults.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from annfeed.errors import FormatError, StaleFileError
from annfeed.h5ad.open_files import make_room
from annfeed.h5ad.slow_file import slow_file
from annfeed.h5ad.turns import reading

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@contextmanager
def open_h5py(path: str) -> Iterator[Any]:
    """Give the `h5py.File` at ``path``, open for reading within the block, in which annfeed writes to no file.

    Raises
    ------
    OSError, FormatError
        As `open_to_stay` does.
    """
    with reading():
        kept: _Kept | None = getattr(_here, "kept", None)
        absolute = os.path.abspath(path)
        may_keep = kept is not None and (kept.path == absolute or not kept.n_users)
        with kept.used(path, absolute) if kept is not None and may_keep else _opened(path) as file:
            yield file


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """The `h5py.File` at ``path``, where reads take long in blocks."""
    import h5py

    slow = slow_file(path)
    if slow is None:
        with open_to_stay(path) as file:
            yield file
        return
    with slow:
        try:
            file = h5py.File(slow, "r")
        except OSError:
            file = open_to_stay(path)  # which says what is wrong with it
        with file:
            yield file


@contextmanager
def opened_once() -> Iterator[None]:
    """Let `open_h5py` open a file once in this thread within the block, however much is looked up in it.

    Each opening takes some twenty reads, one after the other, which a network file system lets wait for each. A file is
    closed when another one is looked at, and at the end of the block, in which annfeed writes to no file.

    Examples
    --------
    >>> import h5py, tempfile
    >>> with tempfile.TemporaryDirectory() as folder, opened_once():
    ...     h5py.File(f"{folder}/empty.h5", "w").close()
    ...     with open_h5py(f"{folder}/empty.h5") as first:
    ...         pass
    ...     with open_h5py(f"{folder}/empty.h5") as second:
    ...         first is second
    True
    """
    if getattr(_here, "kept", None) is not None:
        yield
        return
    with reading():
        kept = _here.kept = _Kept()
        try:
            yield
        finally:
            _here.kept = None
            kept.close()


class _Kept:
    """The file that was looked at last."""

    def __init__(self) -> None:
        self.path: str | None = None
        self.n_users = 0
        self._opened = ExitStack()
        self._file: Any = None

    @contextmanager
    def used(self, path: str, absolute: str) -> Iterator[Any]:
        if self.path != absolute:
            self.close()
            self._opened = ExitStack()
            self._file, self.path = self._opened.enter_context(_opened(path)), absolute
        self.n_users += 1
        try:
            yield self._file
        finally:
            self.n_users -= 1

    def close(self) -> None:
        self._file = self.path = None
        self._opened.close()


#: What this thread keeps open.
_here = threading.local()


def open_to_stay(path: str) -> Any:
    """Return the `h5py.File` at ``path``, open for reading; files that were read long ago may be closed for it.

    An object that keeps it open must close it before annfeed writes (`annfeed.h5ad.identity.holders`).
    """
    import h5py

    if not os.path.isfile(path):  # opening a pipe would wait for a writer
        raise _told(path, None)
    make_room(for_a_moment=True)
    failed: OSError | None = None
    # HDF5 refuses a file that is open in this process with another setting for locks. Try h5py's default first, then no
    # locks: for file systems without them, and for a writer in another process.
    for locking in (None, False, True, "best-effort"):
        try:
            return h5py.File(path, "r", locking=locking)
        except OSError as error:
            failed = failed or error
    raise _told(path, failed) from failed


def check_not_replaced(file: Any) -> None:
    """Raise StaleFileError if the path of an open `h5py.File` is now another file, or none."""
    try:
        opened = os.fstat(file.id.get_vfd_handle())
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return  # a driver without a file descriptor, or not an HDF5 file
    try:
        there = os.stat(file.filename)
    except OSError:
        there = None
    if there is None or (there.st_dev, there.st_ino) != (opened.st_dev, opened.st_ino):
        raise StaleFileError(
            f"{os.fsdecode(file.filename)}: found {'no file' if there is None else 'another file'} at the path of a "
            "backed AnnData; expected the one that it has open. Read the AnnData again"
        )


def has_signature(path: str) -> bool:
    """Whether the file at ``path`` has the signature of HDF5, at its beginning or after a user block.

    Examples
    --------
    >>> has_signature("/dev/null")
    False
    """
    with open(path, "rb") as file:
        size, place = os.fstat(file.fileno()).st_size, 0
        while place < size:
            file.seek(place)
            if file.read(len(_SIGNATURE)) == _SIGNATURE:
                return True
            place = 512 if place == 0 else 2 * place
    return False


def _told(path: str, failed: OSError | None) -> Exception:
    """Return the error for a file that HDF5 does not open; errors of the operating system first."""
    shown, copy_again = os.fsdecode(path), "Copy or download the file again"
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            folder = f'; pass "{shown}/*.h5ad" for the files in it' if stat.S_ISDIR(mode) else ""
            return IsADirectoryError(
                21, f"cannot open the file: it is not a regular file; expected an .h5ad file{folder}", path
            )
        size = os.path.getsize(path)
        signed = has_signature(path)
    except OSError as error:
        return type(error)(error.errno, f"cannot open the file: {error.strerror}", path)
    if size == 0:
        return FormatError(f"{shown}: '/': the file is empty, not HDF5. Give the path of an .h5ad file")
    if not signed:
        return FormatError(f"{shown}: '/': the file is not HDF5 (no HDF5 signature). Give the path of an .h5ad file")
    text, number = str(failed), None if failed is None else failed.errno
    if isinstance(failed, BlockingIOError) or "unable to lock" in text or "already open" in text:
        return OSError(number or 11, f"the file is open for writing elsewhere ({text})", path)
    if "truncated" in text:
        return FormatError(f"{shown}: '/': the file is truncated ({text}). {copy_again}")
    return FormatError(f"{shown}: '/': HDF5 cannot open the file ({text}). {copy_again}")


def text_of(value: Any) -> str:
    """Return an attribute or a name as text: h5py returns fixed-length texts, which Julia writes, as bytes.

    Examples
    --------
    >>> text_of(b"_index"), text_of("_index")
    ('_index', '_index')
    """
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def n_values(column: Any) -> int:
    """Return the length of a column of a DataFrame, from a shape; a categorical or nullable column is a group."""
    from anndata.io import read_elem

    parts = [column] if hasattr(column, "shape") else [column.get(name) for name in ("values", "codes", "mask")]
    lengths = [part.shape[0] for part in parts if hasattr(part, "shape")]
    return int(lengths[0]) if lengths else len(cast(Any, read_elem(column)))


def raw_place(file: Any, place: str) -> str:
    """Return the path of "raw/X" or "raw/var" in a file; before anndata 0.7 it was "raw.X" or "raw.var"."""
    return place.replace("/", ".") if place in ("raw/X", "raw/var") and place not in file else place


def missing_filters(array: Any) -> list[int]:
    """Return HDF5's numbers of the filters of a dataset that h5py lacks; [] for an array in memory."""
    import h5py

    plist = array.id.get_create_plist() if hasattr(array, "id") else None
    codes = [] if plist is None else [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    return [code for code in codes if not h5py.h5z.filter_avail(code)]
