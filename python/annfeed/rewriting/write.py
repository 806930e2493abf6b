"""`rewrite`: the same AnnData in a new file, compressed to read faster."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from annfeed.arrays import Int64Array, integer
from annfeed.display.progress import progress_bar
from annfeed.errors import StaleFileError, UnsupportedError
from annfeed.h5ad.elem import Elem
from annfeed.h5ad.elem_in_file import elem_in
from annfeed.h5ad.file import open_h5py
from annfeed.h5ad.foreign import recognised
from annfeed.h5ad.identity import file_identity
from annfeed.h5ad.sparse import sparse_format
from annfeed.order.permutation import shuffled
from annfeed.order.random import derive_key
from annfeed.process.threads import usable_cores
from annfeed.rewriting.cells import write_cells
from annfeed.rewriting.codecs import find_codec
from annfeed.rewriting.layout import Job
from annfeed.rewriting.matrix import Digests, digests_of, size_of, write_matrix
from annfeed.rewriting.sorting import digests_of_sorted, write_sorted
from annfeed.rewriting.target import new_file
from annfeed.rewriting.tree import cells_beside, copy_tree, matrices, n_cells, point_anew


def rewrite(
    source: str | bytes | os.PathLike[str],
    target: str | bytes | os.PathLike[str],
    *,
    codec: str = "zstd",
    rows: Literal["kept", "shuffled"] = "kept",
    seed: int = 0,
    level: int | None = None,
    chunk_rows: int | None = None,
    genome: str | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    progress: bool = True,
) -> None:
    """Write a copy of an .h5ad file, or a Cell Ranger .h5 (10x Genomics) as one, that is compressed to read faster.

    Compressed are X, raw/X, layers, obsm and obsp, also in the modalities of a MuData; their types and values do not
    change, and a matrix that is stored by columns (CSC) is stored by rows (CSR). Everything else is copied. Of a Cell
    Ranger file all features are written, with the obs and var of ``scanpy.read_10x_h5(path, gex_only=False)``. Memory
    is bounded for any size of file. Before the new file gets its name, it is read back, and a digest of each row is
    compared. After an error, a full disk or Ctrl-C there is no new file; the source is only read.

    Parameters
    ----------
    source
        Path of the file.
    target
        Path of the new file.
    codec
        "zstd"; "bitshuffle" (with LZ4) and "lz4", which compress less; "gzip" and "lzf", which every HDF5 reader or
        h5py has. annfeed reads them all; h5py, anndata and scanpy need hdf5plugin for the first three.
    rows
        "kept" keeps their order. "shuffled" puts them into a random order, so that reading one after the other is
        random; obs, obsm, obsp, layers and raw go along.
    seed
        Seed of the random order.
    level
        Level of "zstd" (1 to 22) or "gzip" (1 to 9). None: 3 and 4.
    chunk_rows
        Mean rows of a chunk; None chooses a small number by the length of rows.
    genome
        Of a Cell Ranger 2 file with several genomes, which one.
    overwrite
        Whether to replace an existing file at ``target``.
    threads
        Threads that decode and compress; None: the cores of the process.
    progress
        Whether to show a progress bar in a terminal or notebook; ``ANNFEED_PROGRESS=0`` in the environment turns all
        bars of annfeed off.

    Raises
    ------
    OSError
        If a file cannot be read or written; FileExistsError if ``target`` exists; `StaleFileError` if the source
        changes meanwhile.
    FormatError
        If the source is damaged or not an .h5ad file.
    ValueError
        If the codec, the level or ``rows`` is unknown; `UnsupportedError` if rows cannot be shuffled: those of a
        MuData, or with awkward arrays in obsm.

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
    if rows not in ("kept", "shuffled"):
        raise ValueError(f"rows is {rows!r}; expected 'kept' or 'shuffled'")
    if chunk_rows is not None:
        integer("chunk_rows", chunk_rows, or_else=" or None")
    if threads is not None:
        integer("threads", threads, or_else=" or None")
    path, new = os.fsdecode(source), os.fsdecode(target)
    if os.path.exists(new) and os.path.exists(path) and os.path.samefile(path, new):
        raise ValueError(f"source and target are one file, {new}; expected two. Write a new file, then rename it")
    with contextlib.suppress(ImportError):  # it registers its filters with h5py, which may have to read some arrays
        import hdf5plugin  # noqa: F401
    with recognised(path), open_h5py(path) as file:
        before = file_identity(path)
        elem = elem_in(path, Elem.parse("X" if genome is None else genome))
        places = list(matrices(file)) if elem.tenx is None else [elem.path]
        order = None if rows == "kept" else _order(path, file, elem, seed)
        total = sum(size_of(file[place]) for place in places)
        with new_file(new, overwrite) as unfinished, progress_bar("rewriting", 2 * total, "B", shown=progress) as count:
            folder = os.path.dirname(os.path.abspath(new))
            job = Job(found, chunk_rows, threads or usable_cores(), count, folder)
            with _told(new):
                if elem.tenx is None:
                    written = _write(path, file, unfinished, places, order, job)
                else:
                    written = _write_tenx(path, file, elem, unfinished, order, job)
            _check(unfinished, written, job)
            if file_identity(path) != before:
                raise StaleFileError(f"{path}: the file changed while it was written again. Begin again")


def _order(path: str, file: Any, elem: Elem, seed: int) -> Int64Array:
    """The old row of each new one."""
    if elem.tenx is not None:
        return shuffled(len(file[elem.obs]), derive_key(seed, 0))
    if "mod" in file or "obs" not in file:
        found = "a MuData file" if "mod" in file else "a file without obs"
        raise UnsupportedError(
            f"{path} is {found}, whose rows are not shuffled; expected an AnnData at the top of the file. Write it to "
            "a file of its own first"
        )
    return shuffled(n_cells(file), derive_key(seed, 0))


#: Digests of rows, and whether they are those of `write_sorted`.
_Written = dict[str, tuple[Digests, bool]]


def _write_matrix(
    path: str, node: Any, parent: Any, name: str, job: Job, new_places: Int64Array | None, both_axes: bool = False
) -> tuple[Digests, bool]:
    if new_places is None and sparse_format(node) != "csc":
        return write_matrix(path, node, parent, name, job), False
    return write_sorted(path, node, parent, name, job, new_places, both_axes=both_axes), True


def _write_tenx(path: str, file: Any, elem: Elem, unfinished: str, order: Int64Array | None, job: Job) -> _Written:
    """Write all of a Cell Ranger file; return the digests of the rows of X."""
    from annfeed.rewriting.tenx import write_tenx  # with anndata and torch: half a gigabyte that other files do without

    written: _Written = {}
    node, new_places = file[elem.path], None if order is None else np.argsort(order)

    def write(parent: Any, name: str) -> None:
        written[name] = _write_matrix(path, node, parent, name, job, new_places)

    write_tenx(path, node, elem, unfinished, order, write)
    return written


def _write(path: str, file: Any, unfinished: str, places: list[str], order: Int64Array | None, job: Job) -> _Written:
    """Write all of the file; return the digests of the rows of each matrix."""
    import h5py

    written: _Written = {}
    new_places = None if order is None else np.argsort(order)

    def write(place: str, parent: Any, name: str) -> None:
        square = place.startswith(("obsp/", "uns/")) and order is not None
        written[place] = _write_matrix(path, file[place], parent, name, job, new_places, square)

    writers: dict[str, Callable[[Any, str], None]] = {place: functools.partial(write, place) for place in places}
    if order is not None:
        for place in cells_beside(file, places):
            writers[place] = functools.partial(_write_cells, file[place], order, path)
    block = file.userblock_size
    tracked = bool(file.id.get_create_plist().get_link_creation_order())
    with h5py.File(unfinished, "x", userblock_size=block or None, track_order=tracked) as new:
        copy_tree(file, new, writers)
        point_anew(file, new)
    if block:
        with open(path, "rb") as old, open(unfinished, "rb+") as made:
            made.write(old.read(block))
    return written


def _write_cells(node: Any, order: Int64Array, path: str, parent: Any, name: str) -> None:
    write_cells(node, parent, name, order, path)


def _check(unfinished: str, written: _Written, job: Job) -> None:
    """Read all matrices back and compare the digest of each row."""
    with open_h5py(unfinished) as file:
        for place, (expected, is_sorted) in written.items():
            read = digests_of_sorted if is_sorted else digests_of
            found = read(unfinished, file[place], len(expected), job)
            if not np.array_equal(found, expected):
                row = int(np.flatnonzero(found != expected)[0])
                raise OSError(
                    errno.EIO,
                    f"row {row} of '{place}' reads otherwise than it was written. The disk or the memory of this "
                    "machine is at fault; the new file was removed",
                    unfinished,
                )


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
