"""A column of text in a file as codes: read piece by piece, so that the whole of it is never in memory as text.

Which text a row has is all that labels, splits and balanced orders ask; a code of one to four bytes a row tells it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from annfeed.display.progress import progress_bar
from annfeed.user_arrays import as_text

#: Rows read together; more where a chunk of the file has more.
_PIECE = 1 << 16


def read_text_codes(column: Any) -> pd.Categorical | None:
    """Return a column of text as codes and its different texts, in order of appearance.

    ``column`` is as it lies in the file: an array of text, or a group with ``values`` and ``mask``. Codes are as narrow
    as they fit, -1 where masked. None for a column that is no text.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryFile() as bytes_, h5py.File(bytes_, "w") as file:
    ...     file["c"] = ["b", "a", "b"]
    ...     file["c"].attrs["encoding-type"] = "string-array"
    ...     found = read_text_codes(file["c"])
    >>> found.codes, list(found.categories)
    (array([0, 1, 0], dtype=int8), ['b', 'a'])
    """
    kind = column.attrs.get("encoding-type")
    if kind == "nullable-string-array":
        return coded(_masked(column["values"].asstr(), column["mask"], column["values"]), len(column["mask"]))
    if not isinstance(column, h5py.Dataset) or column.ndim != 1 or kind not in ("string-array", "array"):
        return None
    if h5py.check_string_dtype(column.dtype) is None:
        return None
    texts = column.asstr() if kind == "string-array" else column
    return coded(((texts[rows], None) for rows in _pieces(column)), len(column))


def coded(pieces: Iterable[tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]], n_rows: int) -> pd.Categorical:
    """Return pieces of a column, each with the mask of what is missing in it, as one categorical.

    Values are objects that are text (bytes count as the text that they are in UTF-8).

    Examples
    --------
    >>> list(coded([(np.array(["b", "a"], object), None), (np.array(["", "b"], object), np.array([True, False]))], 4))
    ['b', 'a', nan, 'b']
    """
    number: dict[str, int] = {}
    codes = np.empty(n_rows, np.int8)
    start = 0
    for values, missing in pieces:
        here, different = pd.factorize(values if values.dtype == object else values.astype(object))
        if missing is not None:
            here[missing] = -1
        used = np.unique(here[here >= 0])
        of_code = np.full(len(different) + 1, -1, np.int64)  # code -1 finds the last entry
        for code in used.tolist():
            of_code[code] = number.setdefault(as_text(different[code]), len(number))
        fits = np.min_scalar_type(-max(1, len(number)))
        if fits.itemsize > codes.itemsize:
            codes = codes.astype(fits)
        codes[start : start + len(here)] = of_code[here]
        start += len(here)
    return pd.Categorical.from_codes(codes, pd.Index(list(number), dtype=object))


def codes_of_texts(column: pd.Series[Any]) -> pd.Categorical | None:
    """Return a column in memory as codes, if its values are texts; None for any other column.

    Examples
    --------
    >>> list(codes_of_texts(pd.Series(["b", None, "a"]))), codes_of_texts(pd.Series([1, 2]))
    (['b', nan, 'a'], None)
    """
    is_categorical = isinstance(column.dtype, pd.CategoricalDtype)
    if pd.api.types.infer_dtype(column.cat.categories if is_categorical else column) not in ("string", "empty"):
        return None
    if is_categorical:
        return column.cat.remove_unused_categories().array  # type: ignore[no-any-return]
    return coded([(column.to_numpy(object), None)], len(column))


def concat_texts(columns: Sequence[pd.Series[Any] | pd.Categorical | int]) -> pd.Categorical | None:
    """Return a column of several sources as one categorical, where some give codes of texts and all have text.

    A number stands for as many missing values. None for all else: categoricals keep the categories that they have.

    Examples
    --------
    >>> list(concat_texts([pd.Categorical(["b"]), 1, pd.Series(["a", "b"])])), concat_texts([pd.Series(["a"])])
    (['b', nan, 'a', 'b'], None)
    """
    if not any(isinstance(column, pd.Categorical) for column in columns):
        return None
    number: dict[str, int] = {}
    codes: list[npt.NDArray[Any]] = []
    for column in columns:
        if isinstance(column, int):
            codes.append(np.full(column, -1, np.int8))
            continue
        texts = codes_of_texts(column) if isinstance(column, pd.Series) else column
        if texts is None:
            return None
        of_code = np.array([*(number.setdefault(text, len(number)) for text in texts.categories), -1])
        codes.append(of_code.astype(np.min_scalar_type(-max(1, len(number))))[texts.codes])
    return pd.Categorical.from_codes(np.concatenate(codes), pd.Index(list(number), dtype=object))


def _masked(texts: Any, mask: h5py.Dataset, values: h5py.Dataset) -> Iterator[tuple[npt.NDArray[Any], Any]]:
    for rows in _pieces(values):
        yield texts[rows], mask[rows]


def _pieces(values: h5py.Dataset) -> Iterator[slice]:
    """Yield slices of rows, whole chunks each, with a progress bar."""
    chunk = values.chunks[0] if values.chunks else 1
    step = max(_PIECE // chunk, 1) * chunk  # so that no chunk is decoded twice
    with progress_bar(f"reading {str(values.name).lstrip('/')}", len(values), "rows") as count:
        for start in range(0, len(values), step):
            stop = min(start + step, len(values))
            yield slice(start, stop)
            count(stop - start)
