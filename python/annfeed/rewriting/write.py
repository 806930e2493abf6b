"""`rewrite`: the same AnnData in a new file, compressed to read faster."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import Any

from annfeed.errors import StaleFileError
from annfeed.h5ad.file import open_h5py
from annfeed.h5ad.foreign import recognised
from annfeed.h5ad.identity import file_identity
from annfeed.process.threads import usable_cores
from annfeed.rewriting.codecs import find_codec
from annfeed.rewriting.matrix import Digests, Job, check_matrix, size_of, write_matrix
from annfeed.rewriting.target import new_file
from annfeed.rewriting.tree import copy_tree, matrices, point_anew
from annfeed.user_arrays import positive_int


def rewrite(
    source: str | bytes | os.PathLike[str],
    target: str | bytes | os.PathLike[str],
    *,
    codec: str = "zstd",
    level: int | None = None,
    chunk_rows: int | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    progress: bool = True,
) -> None:
    """Write a copy of an .h5ad file whose matrices over cells are compressed to read faster.

    These are X, raw/X, layers, obsm and obsp, also in the modalities of a MuData; their types and values do not change.
    Everything else is copied. Memory is bounded for any size of file. Before the new file gets its name, it is read
    back, and a digest of each row is compared. After an error or Ctrl-C there is no new file; the source is only read.

    Parameters
    ----------
    source
        Path of the file.
    target
        Path of the new file.
    codec
        "zstd"; "bitshuffle" (with LZ4) and "lz4", which decode faster and compress less; "gzip" and "lzf", which every
        HDF5 reader or h5py has. annfeed reads them all; h5py, anndata and scanpy need hdf5plugin for the first three.
    level
        Level of "zstd" (1 to 22) or "gzip" (1 to 9). None: 1 and 4.
    chunk_rows
        Mean rows of a chunk; None chooses a small number by the length of rows.
    overwrite
        Whether to replace an existing file at ``target``.
    threads
        Threads that decode and compress; None: the cores of the process.
    progress
        Whether to show a progress bar in a terminal.

    Raises
    ------
    OSError
        If a file cannot be read or written; FileExistsError if ``target`` exists; `StaleFileError` if the source
        changes meanwhile.
    FormatError
        If the source is damaged or not an .h5ad file.
    ValueError
        If the codec or the level is unknown.

    Examples
    --------
    >>> import anndata, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     anndata.AnnData(np.eye(3, dtype="float32")).write_h5ad(f"{folder}/three.h5ad")
    ...     rewrite(f"{folder}/three.h5ad", f"{folder}/faster.h5ad", codec="gzip")
    ...     anndata.read_h5ad(f"{folder}/faster.h5ad").X[2].tolist()
    [0.0, 0.0, 1.0]
    """
    found = find_codec(codec).at(level)
    if chunk_rows is not None:
        positive_int("chunk_rows", chunk_rows, " or None")
    if threads is not None:
        positive_int("threads", threads, " or None")
    path, new = os.fsdecode(source), os.fsdecode(target)
    if os.path.exists(new) and os.path.exists(path) and os.path.samefile(path, new):
        raise ValueError(f"source and target are one file, {new}; expected two. Write a new file, then rename it")
    with contextlib.suppress(ImportError):  # it registers its filters with h5py, which may have to read some arrays
        import hdf5plugin  # noqa: F401
    with recognised(path), open_h5py(path) as file:
        before = file_identity(path)
        places = list(matrices(file))
        total = sum(size_of(file[place]) for place in places)
        with new_file(new, overwrite) as unfinished, _bar(2 * total, progress) as count:
            job = Job(found, chunk_rows, threads or usable_cores(), count)
            with _told(new):
                digests = _write(path, file, unfinished, places, job)
            _check(unfinished, digests, job)
            if file_identity(path) != before:
                raise StaleFileError(f"{path}: the file changed while it was written again. Begin again")


def _write(path: str, file: Any, unfinished: str, places: list[str], job: Job) -> dict[str, Digests]:
    """Write all of the file; return the digests of the rows of each matrix."""
    import h5py

    digests: dict[str, Digests] = {}

    def writer(place: str) -> Callable[[Any, str], None]:
        def write(parent: Any, name: str) -> None:
            digests[place] = write_matrix(path, file[place], parent, name, job)

        return write

    block = file.userblock_size
    order = bool(file.id.get_create_plist().get_link_creation_order())
    with h5py.File(unfinished, "x", userblock_size=block or None, track_order=order) as new:
        copy_tree(file, new, {place: writer(place) for place in places})
        point_anew(file, new)
    if block:
        with open(path, "rb") as old, open(unfinished, "rb+") as made:
            made.write(old.read(block))
    return digests


def _check(unfinished: str, digests: dict[str, Digests], job: Job) -> None:
    with open_h5py(unfinished) as file:
        for place, expected in digests.items():
            check_matrix(unfinished, file[place], expected, job)


@contextlib.contextmanager
def _told(path: str) -> Any:
    """Turn what HDF5 says in words alone into errors of the operating system."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            if os.strerror(number) in str(error):
                raise OSError(
                    number, f"{os.strerror(number)}; the new file was removed, the source is as it was", path
                ) from error
        raise


@contextlib.contextmanager
def _bar(total: int, shown: bool) -> Any:
    from tqdm import tqdm

    # Nothing on a screen that is none.
    options: dict[str, Any] = {"unit": "B", "unit_scale": True, "disable": None if shown else True}
    with tqdm(None, "annfeed: rewriting", total, **options) as bar:
        yield bar.update
