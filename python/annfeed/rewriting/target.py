"""The file that is written: under another name until it is whole, then under its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: In the name of a file that is not whole; it does not end in .h5ad, so that no pattern of files finds it.
UNFINISHED = ".annfeed-unfinished"


@contextmanager
def new_file(path: str, overwrite: bool) -> Iterator[str]:
    """Give a name in the folder of ``path`` to write to; at the end of the block the file gets the name ``path``.

    Whatever ends the block otherwise, the file is removed. A process that is killed leaves it under the name that was
    given, which has `UNFINISHED` in it.

    Raises
    ------
    FileExistsError
        If there is a file at ``path``, unless ``overwrite``.
    """
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(17, "there is a file already. Choose another name, or overwrite it", path)
    unfinished = f"{path}{UNFINISHED}-{os.getpid()}"
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        if overwrite:
            os.replace(unfinished, path)
        else:
            _rename(unfinished, path)
        _flush_folder(os.path.dirname(path) or ".")
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise


def _rename(unfinished: str, path: str) -> None:
    """Rename, unless a file of that name came meanwhile, whose place `os.replace` would take."""
    try:
        os.link(unfinished, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(17, "there is a file by now. Choose another name, or overwrite it", path) from None
        os.replace(unfinished, path)
    else:
        os.unlink(unfinished)


def _flush_folder(folder: str) -> None:
    with suppress(OSError):  # where folders cannot be flushed, the name is as safe as it gets
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
