"""What a sparse matrix says of itself: format and shape, in anndata's encodings of all times and in Cell Ranger's."""

from __future__ import annotations

from typing import Any

from annfeed.h5ad.file import text_of

_FORMATS = {"csr_matrix": "csr", "csc_matrix": "csc", "csr": "csr", "csc": "csc"}


def encoding_of(node: Any) -> str | None:
    """Return the encoding that the attributes of a matrix name; None for none."""
    encoding = node.attrs.get("encoding-type", node.attrs.get("h5sparse_format"))
    return None if encoding is None else text_of(encoding)  # Julia writes bytes


def sparse_format(node: Any) -> str | None:
    """Return "csr" or "csc"; None for what is no sparse matrix."""
    if not hasattr(node, "keys") or not {"data", "indices", "indptr"} <= set(node):
        return None
    encoding = encoding_of(node)
    if encoding is None:
        return "csr" if "barcodes" in node else None  # Cell Ranger's
    return _FORMATS.get(encoding)


def sparse_shape(node: Any) -> tuple[int, int]:
    """Return rows and columns of a sparse matrix; an error of h5py or numpy where there is no shape."""
    shape = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
    if shape is None and encoding_of(node) is None:
        columns, rows = node["shape"][()]
    else:
        rows, columns = shape
    return int(rows), int(columns)
