"""What users pass as results, as pieces of rows and values: arrays, frames, and whatever a prediction loop gives.

Pieces are taken one by one, so that a generator's are never held together. Which row is which is decided here; where
the values go is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from annfeed.arrays import Int64Array
from annfeed.batches.keys import INDEX, IS_PADDING
from annfeed.user_arrays import are_renumbered

if TYPE_CHECKING:
    from annfeed.results.destinations import Destinations


@dataclass(frozen=True)
class Piece:
    """Some results."""

    what: str  # the words for them in messages
    rows: Int64Array  # [n]
    values: Any  # [n], [n, k] or a DataFrame: numpy, torch or pandas


def pieces(results: Any, index: Any, key: str, target: Destinations, *, of_column: bool) -> Iterator[Piece]:
    """Give the pieces of ``results``, as `annfeed.write_obsm` takes them, or, ``of_column``, `annfeed.write_obs`.

    ``index`` are the rows of an array; None where ``results`` says them, or has one for each row of ``target``. A dict
    may hold its values under ``key``.
    """
    number = -1
    if index is not None or _is_whole(results, of_column):
        yield _whole(results, index, target, of_column)
        return
    if isinstance(results, Mapping):
        results = [results]
    elif not isinstance(results, Iterable) or isinstance(results, str | bytes):
        raise TypeError(f"results is a {type(results).__name__}; expected an array or pairs (index, values)")
    for number, batch in enumerate(results):
        what = f"result {number}"
        rows, values = _of_batch(what, batch, key)
        n = _length(what, values)
        yield _checked(Piece(what, _row_numbers(rows, n, f" of {what}"), values), target)
    if number < 0:
        raise ValueError("results is empty; expected at least one pair (index, values)")


def _is_whole(results: Any, of_column: bool) -> bool:
    """Whether results are values, and not batches of them."""
    if isinstance(results, torch.Tensor | np.ndarray | pd.DataFrame | pd.Series | pd.Index):
        return True
    if isinstance(results, pd.api.extensions.ExtensionArray):
        return True
    if not of_column or not isinstance(results, list | tuple) or not results:
        return False
    return not isinstance(results[0], tuple | list | Mapping)


def _whole(results: Any, index: Any, target: Destinations, of_column: bool) -> Piece:
    if not of_column and not isinstance(results, pd.DataFrame | pd.Series | torch.Tensor):
        results = np.asanyarray(results)  # a masked array stays one
    n = _length("results", results)
    if index is not None:
        return _checked(Piece("results", _row_numbers(index, n, ""), results), target)
    rows = _rows_of_labels(results, target) if isinstance(results, pd.DataFrame | pd.Series) else None
    if rows is not None:
        return Piece("results", rows, results)
    rows = target.positions()
    n_rows = target.n_rows if rows is None else len(rows)
    if n != n_rows:
        raise ValueError(
            f"{target.place}: there are {n} results for {n_rows} rows; pass index= to say which rows they are of"
        )
    return Piece("results", np.arange(n, dtype=np.int64) if rows is None else rows, results)


def _rows_of_labels(frame: Any, target: Destinations) -> Int64Array | None:
    """Rows by the names that a Series or a DataFrame has as its index; None where it counts them."""
    labels = frame.index
    names, positions = target.names(), target.positions()
    own = names if positions is None else names[positions]
    if labels.equals(pd.RangeIndex(len(labels))):
        if len(own) == len(labels) and are_renumbered(own):
            raise ValueError(
                f"{target.place}: the index of results is 0, 1, 2, …, but obs names are these numbers in another "
                "order: by position and by name results are of different rows. Pass results.to_numpy() to go by "
                "position, or results.set_axis(results.index.astype(str)) to go by name"
            )
        return None
    if len(own) == len(labels) and (own == labels).all():
        return None
    if labels.is_unique and names.is_unique:
        rows = names.get_indexer(labels).astype(np.int64)
        if (rows >= 0).all():
            return rows
        found = f"{labels[int(np.argmin(rows))]!r}, which is no obs name"
    else:
        found = "names that are there more than once"
    raise ValueError(
        f"{target.place}: the index of results has {found}; expected obs names, or 0, 1, 2, … for all rows in order. "
        "Pass index= to say which rows they are of"
    )


def _of_batch(what: str, batch: Any, key: str) -> tuple[Any, Any]:
    if isinstance(batch, Mapping):
        return _of_dict(what, batch, key)
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise TypeError(
            f"{what} is a {type(batch).__name__}; expected a pair (index, values) or a dict with 'index'; an "
            "array of all results is passed as one, not in a list"
        )
    return batch[0], batch[1]


def _of_dict(what: str, batch: Mapping[Any, Any], key: str) -> tuple[Any, Any]:
    if INDEX not in batch:
        raise TypeError(
            f"{what} is a dict with {_listed(batch)}; expected 'index', the rows, as predict_loader and "
            "return_index=True put it into batches"
        )
    others = [name for name in batch if name not in (INDEX, IS_PADDING)]
    if key in others:
        others = [key]
    if len(others) != 1:
        raise TypeError(
            f"{what} is a dict with {_listed(batch)}; expected 'index' and one more, the values. Give them under the "
            f"key {key!r}"
        )
    rows, values = batch[INDEX], batch[others[0]]
    if IS_PADDING in batch:
        # Rows that came twice to make ranks even.
        own = ~np.asarray(_numpy(batch[IS_PADDING]), bool)
        kept = np.flatnonzero(own)
        rows = np.asarray(_numpy(rows))[own]
        if isinstance(values, list):
            values = [values[i] for i in kept]
        else:
            values = values.iloc[kept] if hasattr(values, "iloc") else values[kept]
    return rows, values


def _listed(batch: Mapping[Any, Any]) -> str:
    return ", ".join(repr(name) for name in batch) or "nothing"


def _checked(piece: Piece, target: Destinations) -> Piece:
    rows = piece.rows
    outside = rows[(rows < 0) | (rows >= target.n_rows)]
    if len(outside):
        raise IndexError(f"{target.place}: there is a result for row {outside[0]}; expected 0 to {target.n_rows - 1}")
    labels = getattr(piece.values, "index", None)
    if isinstance(labels, pd.Index) and not pd.api.types.is_numeric_dtype(labels.dtype):
        names = target.names()[rows]
        wrong = np.flatnonzero(np.asarray(names != labels))
        if len(wrong):
            raise ValueError(
                f"{target.place}: {piece.what} has {labels[wrong[0]]!r} for row {rows[wrong[0]]}, which is "
                f"{names[wrong[0]]!r}; expected obs names that agree with the row numbers. Leave one of them out"
            )
    return piece


def _row_numbers(index: Any, n: int, where: str) -> Int64Array:
    rows = np.asarray(_numpy(index))
    if rows.size == 0 and n == 0:
        return np.empty(0, np.int64)
    if rows.dtype.kind not in "iu":
        raise TypeError(f"the index{where} has dtype {rows.dtype}; expected integers")
    if rows.shape != (n,):
        raise ValueError(f"the index{where} has shape {rows.shape}; expected one row for each of {n} results")
    return rows.astype(np.int64)


def _length(what: str, values: Any) -> int:
    if np.ndim(values) == 0 and not hasattr(values, "__len__"):
        raise TypeError(f"{what} is a {type(values).__name__}; expected one value for each row")
    if getattr(values, "ndim", 1) == 0:
        raise ValueError(f"{what} has shape (); expected [n, k] or [n]")
    return len(values)


def _numpy(values: Any) -> Any:
    return values.detach().cpu() if isinstance(values, torch.Tensor) else values
