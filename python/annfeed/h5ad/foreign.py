"""Recognises files of other formats, by their contents, or by their name if the contents say nothing.

It is used only after a file could not be opened. The error says what the file is and how to make an .h5ad of it.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from annfeed.errors import UnsupportedError
from annfeed.h5ad.file import has_signature, open_h5py


@dataclass(frozen=True)
class Foreign:
    """A kind of file that is recognised but not read.

    Parameters
    ----------
    what
        Name of the kind, with an article.
    remedy
        A sentence that says what to do.
    """

    what: str
    remedy: str


def _scanpy(call: str) -> str:
    return f'Convert it once: scanpy.{call}.write_h5ad("cells.h5ad")'


_R = "Convert it in R, as with anndataR or zellkonverter (writeH5AD)"
_UNPACK = "Unpack it first"
_LOOM = Foreign("a loom file", 'Convert it once: anndata.io.read_loom(path).write_h5ad("cells.h5ad")')
_MTX = Foreign(
    "a matrix in Matrix Market form (.mtx)",
    "Convert it once, with its barcodes and features: scanpy.read_10x_mtx(folder) or scanpy.read_mtx(path).T, then "
    'adata.write_h5ad("cells.h5ad")',
)
_TABLE = Foreign("a text table", 'Convert it once: anndata.io.read_csv(path).write_h5ad("cells.h5ad")')
_ZARR = Foreign("a zarr store", 'Convert it once: anndata.io.read_zarr(path).write_h5ad("cells.h5ad")')
_SEURAT = Foreign("an h5Seurat file", 'Convert it in R: SeuratDisk::Convert(path, dest = "h5ad")')
_TAR = Foreign("a tar archive", f"{_UNPACK}: tar -xf")
_RDS = Foreign("a file of R objects (.rds)", _R)

#: First bytes of files that are not HDF5.
_STARTS = {
    b"BZh": Foreign("a file compressed with bzip2", f"{_UNPACK}: bunzip2"),
    b"\xfd7zXZ\x00": Foreign("a file compressed with xz", f"{_UNPACK}: unxz"),
    b"\x28\xb5\x2f\xfd": Foreign("a file compressed with zstd", f"{_UNPACK}: unzstd"),
    b"PK\x03\x04": Foreign("a zip archive", f"{_UNPACK}: unzip; of a zarr store, read it with anndata.io.read_zarr"),
    b"%%MatrixMarket": _MTX,
    b"X\n\x00\x00\x00": _RDS,
    b"RDX": _RDS,
    b"PAR1": Foreign("a Parquet table", "Make an AnnData of it (pandas.read_parquet) and write that as .h5ad"),
    b"ARROW1": Foreign("an Arrow table", "Make an AnnData of it (pandas.read_feather) and write that as .h5ad"),
    b"\x93NUMPY": Foreign("a numpy array (.npy)", "Make an AnnData of it (numpy.load) and write that as .h5ad"),
    b"\x80\x04\x95": Foreign("a Python pickle", "Unpickle the AnnData and write it as .h5ad"),
    b"\x80\x05\x95": Foreign("a Python pickle", "Unpickle the AnnData and write it as .h5ad"),
}
#: Ends of names of files whose first bytes say nothing.
_ENDS = {
    (".csv", ".tsv", ".txt", ".tab"): _TABLE,
    (".mtx",): _MTX,
    (".rds", ".rdata", ".rda", ".qs"): _RDS,
    (".loom",): _LOOM,
    (".zarr",): _ZARR,
    (".h5seurat",): _SEURAT,
    (".tar", ".tgz"): _TAR,
}
_URL = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://")


def find_foreign(path: str) -> Foreign | None:
    """Return the kind of the file at ``path``, if it is recognised and not read by annfeed; None for other files.

    Examples
    --------
    >>> find_foreign("s3://bucket/atlas.h5ad").what
    'a remote address (s3://)'
    >>> find_foreign("/no/such/file.csv") is None
    True
    """
    with suppress(OSError):
        if not os.path.lexists(path):
            return _of_address(path)
        if os.path.isdir(path):
            return _of_folder(path)
        if os.path.isfile(path) and os.path.getsize(path):
            return _of_hdf5(path) if has_signature(path) else _of_bytes(path)
    return None


@contextmanager
def recognised(path: str) -> Iterator[None]:
    """Turn an OSError, ValueError or KeyError in the block into UnsupportedError, for files of recognised kinds."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        found = find_foreign(path)
        if found is None:
            raise
        shown = os.fsdecode(path)
        raise UnsupportedError(f"{shown} is {found.what}; expected an .h5ad file. {found.remedy}") from error


def _of_address(path: str) -> Foreign | None:
    match = _URL.match(path)
    if match is None:
        return None
    scheme = match["scheme"].lower()
    if scheme == "file":
        return Foreign("an address (file://)", f"Pass the path: {path[len('file://') :]!r}")
    return Foreign(f"a remote address ({scheme}://)", "Download the file, or mount the store, and pass its local path")


def _of_folder(path: str) -> Foreign | None:
    there = set(os.listdir(path))
    if there & {".zgroup", ".zattrs", ".zmetadata", "zarr.json"}:
        return _ZARR
    if any(name in there for name in ("matrix.mtx", "matrix.mtx.gz")):
        return Foreign("a 10x Genomics folder (matrix.mtx)", _scanpy("read_10x_mtx(path)"))
    return None


def _of_bytes(path: str) -> Foreign | None:
    with open(path, "rb") as file:
        start = file.read(512)
    if not start.startswith(b"\x1f\x8b"):
        return _of_start(start, path)
    inner = b""
    with suppress(OSError, EOFError), gzip.open(path) as file:
        inner = file.read(512)
    found = _of_start(inner, re.sub(r"\.(gz|tgz)$", "", path, flags=re.IGNORECASE))
    if found is not None:
        return found
    return Foreign("a file compressed with gzip", f"{_UNPACK}: gunzip (HDF5's own compression stays readable)")


def _of_start(start: bytes, path: str) -> Foreign | None:
    by_bytes = next((found for mark, found in _STARTS.items() if start.startswith(mark)), None)
    if by_bytes is None and start[257:262] == b"ustar":
        return _TAR
    return by_bytes or next((found for ends, found in _ENDS.items() if path.lower().endswith(ends)), None)


def _of_hdf5(path: str) -> Foreign | None:
    with suppress(Exception), open_h5py(path) as file:
        return next((found for found, fits in _HDF5 if fits(file)), None)
    return None


_HDF5: list[tuple[Foreign, Callable[[Any], bool]]] = [
    (
        Foreign("a 10x Genomics molecule file", "Take the feature-barcode matrix (.h5) of the same run"),
        lambda file: {"barcode_idx", "molecule_info"} & set(file) != set() and "umi" in file,
    ),
    (_LOOM, lambda file: {"matrix", "row_attrs", "col_attrs"} <= set(file)),
    (_SEURAT, lambda file: {"assays", "cell.names"} <= set(file) or {"assays", "meta.data"} <= set(file)),
]
