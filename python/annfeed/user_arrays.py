"""What users pass as an array (lists, numpy, pandas, torch), as plain numpy; a Series goes by its index.

pandas has several types for one thing: objects after a merge, nullable and pyarrow-backed ones. They are told apart
here only. Who asks for the array knows what its values mean.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, KeysView, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from annfeed.arrays import Int64Array

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]


def as_array(what: str, values: Any) -> Array:
    """Return ``values`` as bool, integers, floats or texts; as objects where they are none of these.

    They are an array of any library, a list, a tuple, a range, or any other iterable that has an order. ``what`` names
    the argument in messages, here and below.

    Examples
    --------
    >>> import pandas as pd
    >>> as_array("mask", pd.array([True, False], dtype="boolean")), as_array("names", [b"CD4"])
    (array([ True, False]), array(['CD4'], dtype=object))
    """
    if hasattr(values, "detach"):
        values = numpy_of_tensor(values)
    if isinstance(values, str | bytes):
        raise TypeError(f"{what} is the text {values!r}; expected a list or an array")
    if isinstance(values, AbstractSet | Mapping) and not isinstance(values, KeysView):
        kind = "dict" if isinstance(values, Mapping) else "set"
        raise TypeError(f"{what} is a {kind}; expected a list or an array; pass a list, as sorted(…) gives")
    if isinstance(values, KeysView) or (not hasattr(values, "__len__") and hasattr(values, "__iter__")):
        values = list(values)
    if isinstance(values, np.ma.MaskedArray):
        gaps = np.ma.getmaskarray(values)
        if gaps.any():
            raise _with_a_gap(what, values, int(np.argmax(gaps.reshape(-1))))
    # Before numpy has it: some of pandas' types become floats there where a value is missing.
    missing = np.asarray(values.isna()) if hasattr(values, "isna") else None
    array = np.asarray(values)
    if array.dtype.kind in "ST":
        array = array.astype(object)
    if array.dtype != object:
        if missing is not None and missing.any() and not isinstance(values.dtype, np.dtype):
            raise _with_a_gap(what, values, int(np.argmax(missing)))
        return array
    if array.ndim != 1:
        return array
    if missing is None:
        import pandas as pd

        missing = pd.isna(array)
    if missing.any() and not missing.all():
        raise _with_a_gap(what, array, int(np.argmax(missing)), array[~missing])
    return _of_one_kind(array)


def one_axis(what: str, values: Any) -> Array:
    """Return ``values`` as `as_array` does; a TypeError where they are not one-dimensional.

    Examples
    --------
    >>> one_axis("rows", range(2))
    array([0, 1])
    """
    if not hasattr(values, "__len__") and not hasattr(values, "__iter__"):
        raise TypeError(f"{what} is {values!r}; expected a list or an array")
    array = as_array(what, values)
    if array.ndim != 1:
        raise TypeError(f"{what} has {array.ndim} axes; expected a list or a one-dimensional array")
    return array


def index_of(values: Any) -> pd.Index[Any] | None:
    """Return the index of a Series that says more than its default 0, 1, …; None for anything else.

    Examples
    --------
    >>> import pandas as pd
    >>> index_of(pd.Series([True])) is None, index_of(pd.Series([True], index=["a"])).tolist(), index_of([True]) is None
    (True, ['a'], True)
    """
    if not is_series(values):
        return None
    index: pd.Index[Any] = values.index
    is_default = index.dtype.kind in "iu" and np.array_equal(index.to_numpy(), np.arange(len(index)))
    return None if is_default else index


def is_series(values: Any) -> TypeGuard[pd.Series[Any]]:
    """Whether ``values`` have an index that may say which rows they are of: a Series of pandas.

    Examples
    --------
    >>> import pandas as pd
    >>> is_series(pd.Series([True])), is_series(np.array([True]))
    (True, False)
    """
    return hasattr(values, "iloc") and getattr(values, "ndim", 0) == 1


def are_renumbered(names: pd.Index[Any]) -> bool:
    """Whether names are 0, 1, 2, … in another order, so that a default index says other rows than positions do.

    Examples
    --------
    >>> import pandas as pd
    >>> [are_renumbered(pd.Index(names)) for names in (["1", "0"], ["0", "1"], ["1", "7"], ["a", "b"])]
    [True, False, False, False]
    """
    if not len(names) or not str(names[0]).isdecimal():
        return False
    numbers = np.arange(len(names)).astype(str)
    texts = np.asarray(names.astype(str), dtype=object)
    return not np.array_equal(texts, numbers) and set(texts.tolist()) == set(numbers.tolist())


def by_index(what: str, array: Array, values: Any, names: Callable[[], pd.Index[Any]] | None, named: str) -> Array:
    """Return the values of a Series in the order of ``names``; as they are where its index is the default one.

    Parameters
    ----------
    array, values
        Its values, and the Series itself; anything else has no index, and stays as it is.
    names, named
        Gives the names of rows or columns, and the expression for it in messages; None where they are not known.

    Examples
    --------
    >>> import pandas as pd
    >>> mask = pd.Series([True, False], index=["b", "a"])
    >>> by_index("mask", mask.to_numpy(), mask, lambda: pd.Index(["a", "b"]), "adata.obs_names")
    array([False,  True])
    """
    index = index_of(values)
    if index is None:
        known = names() if is_series(values) and names is not None else None
        if known is not None and are_renumbered(known):
            raise ValueError(
                f"{what} is a Series with the index 0, 1, 2, …, but {named} [{first_few(known)}] are these numbers in "
                "another order: by position and by name its values are those of different ones. Pass series.to_numpy() "
                "to go by position, or series.set_axis(series.index.astype(str)) to go by name"
            )
        return array
    known = None if names is None else names()
    if known is not None:
        order = _order_of(index, known)
        if order is not None:
            return array[order]
    found = "" if known is None else f" [{first_few(known)}]"
    raise ValueError(
        f"{what} is a Series whose index [{first_few(index)}] is not {named}{found}: by position its values "
        f"would be those of others. Pass series.reindex({named}), or series.to_numpy() to go by "
        "position"
    )


def is_of(index: pd.Index[Any] | None, names: Callable[[], pd.Index[Any]] | None) -> bool:
    """Whether the index of a Series is ``names``, in some order: the Series has a value for each.

    Examples
    --------
    >>> import pandas as pd
    >>> is_of(pd.Index(["b", "a"]), lambda: pd.Index(["a", "b"]))
    True
    """
    return index is not None and names is not None and _order_of(index, names()) is not None


def _order_of(index: pd.Index[Any], names: pd.Index[Any]) -> Int64Array | None:
    """The place in ``index`` of each of ``names``; None where they are not the same, each once or in one order."""
    if len(index) != len(names) or index.nlevels > 1:
        return None
    # Names of rows are always text; pandas often made numbers of them.
    texts, known = index.astype(str), names.astype(str)
    if texts.equals(known):
        return np.arange(len(index), dtype=np.int64)
    if not texts.is_unique or not known.is_unique:
        return None
    order: Int64Array = texts.get_indexer(known).astype(np.int64)
    return order if (order >= 0).all() else None


def numpy_of_tensor(tensor: Any) -> Array:
    """Return a torch tensor on any device as an array; bfloat16, which numpy has not, as float32."""
    tensor = tensor.detach().cpu()
    try:
        array: Array = tensor.numpy()
    except TypeError:  # numpy has no bfloat16
        array = tensor.float().numpy()
    return array


def _of_one_kind(array: Array) -> Array:
    """Objects as what they all are."""
    kinds = {kind_of(value) for value in array.tolist()}
    if not kinds:
        return array
    if kinds == {"bool"}:
        return array.astype(bool)
    if kinds == {"integer"}:
        try:
            return array.astype(np.int64)
        except OverflowError:
            return array.astype(np.float64)
    if kinds <= {"integer", "float"}:
        return array.astype(np.float64)
    return np.array([as_text(v) for v in array.tolist()], object) if kinds <= {"text", "bytes"} else array


def kind_of(value: object) -> str:
    """Return "bool", "integer", "float", "text" or "bytes", also of numpy's types; the type's name for all others."""
    kinds = {
        "bool": bool | np.bool_,
        "integer": int | np.integer,
        "float": float | np.floating,
        "text": str,
        "bytes": bytes,
    }
    return next((name for name, types in kinds.items() if isinstance(value, types)), type(value).__name__)


def as_text(value: Any) -> str:
    """Return a user's value as text; bytes that are no UTF-8 as what they would be written as.

    Examples
    --------
    >>> as_text(b"CD4"), as_text(7)
    ('CD4', '7')
    """
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _with_a_gap(what: str, array: Any, place: int, rest: Array | None = None) -> Exception:
    kind = {"b": "bool", "i": "integer", "u": "integer"}.get(getattr(array.dtype, "kind", "O"), "other")
    if rest is not None and len(rest):
        kinds = {kind_of(value) for value in rest.tolist()}
        kind = kinds.pop() if len(kinds) == 1 else "other"
    found = f"with a missing value at place {place}"
    if kind == "bool":
        return ValueError(
            f"{what} is a mask {found}; expected True or False in each place. Fill it, as with mask.fillna(False)"
        )
    if kind == "text":
        return ValueError(f"{what} is a list of names {found}; expected a name in each place. Drop it first")
    error = TypeError if kind == "integer" else ValueError
    return error(f"{what} holds {array.dtype} {found}; expected a value in each place. Drop or fill it first")


def first_few(values: Any, limit: int = 3, form: Callable[[Any], str] = repr) -> str:
    """Return the first values and how many more there are, for a message.

    Examples
    --------
    >>> first_few(["CD4", "CD8A", "CD3E", "GNLY"]), first_few([1, 2])
    ("'CD4', 'CD8A', 'CD3E' and 1 more", '1, 2')
    """
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(map(form, values[:limit])) + more


def close_matches(name: str, names: Iterable[str]) -> list[str]:
    """Return names like ``name``, three at most.

    Examples
    --------
    >>> close_matches("CD3e", ["CD3E", "CD8A"])
    ['CD3E']
    """
    folded = {n.casefold(): n for n in names}
    return [folded[n] for n in difflib.get_close_matches(name.casefold(), folded, 3)]


def near_matches(name: str, names: Iterable[Any], limit: int = 5) -> str:
    """Return the end of a message: names like ``name``, or the first ones that there are.

    What is not text is left out, as the None that stands for X in the layers of an AnnData from anndata 0.13 on.

    Examples
    --------
    >>> near_matches("CD3e", ["CD3E", "CD8A"])
    "Did you mean 'CD3E'?"
    >>> near_matches("count", [None])
    'There are none.'
    """
    names = [n for n in names if isinstance(n, str)]
    if not names:
        return "There are none."
    near = close_matches(name, names)
    if near:
        return "Did you mean " + " or ".join(map(repr, near)) + "?"
    return f"There are {len(names)}: {', '.join(map(repr, names[:limit]))}{', …' if len(names) > limit else ''}"
