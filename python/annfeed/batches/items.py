"""From items to a batch and back, and transforms applied to a batch.

A dataset reads whole batches; torch and users' transforms speak of items. This is the one place where the two meet: it
splits, stacks, and hands whole batches on untouched where it can. It reads nothing and knows no order of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any, overload

import numpy as np
import torch

from annfeed.memory.sparse import compressed
from annfeed.memory.transport import sendable
from annfeed.transforms.base import RowTotals, Transform, is_on_x, run_steps, steps_of

Item = dict[str, Any]
Batch = dict[str, Any]


class Items(Sequence[Item]):
    """A whole batch that can also be read as a sequence of items.

    It is what ``AnnDataset.__getitems__`` returns: `Collate` takes `batch` as it is, while torch's default_collate and
    users' own collate functions see items. Items are views of the batch, made when first asked for.

    Parameters
    ----------
    batch
        Every value, tensor or list, with one entry a row.

    Raises
    ------
    ValueError
        If a value has not one entry a row, when the length or items are asked for.

    Examples
    --------
    >>> items = Items({"X": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "obs_sex": ["f", "m"]})
    >>> len(items), items[1]
    (2, {'X': tensor([3., 4.]), 'obs_sex': 'm'})
    """

    def __new__(cls, batch: Batch | list[Item]) -> Any:
        """Make items of a batch; of a list of items, the batch.

        torch's default_convert, which a DataLoader with ``batch_size=None`` collates with, makes a sequence anew from
        its members, ``type(items)([…])``, and takes the result for the batch.
        """
        return stack(batch) if isinstance(batch, list) else super().__new__(cls)

    def __init__(self, batch: Batch) -> None:
        """Keep the batch."""
        self.batch = batch
        self._items: list[Item] | None = None

    def _list(self) -> list[Item]:
        # default_collate goes through all items once for each key, so they are made once.
        if self._items is None:
            self._items = split(self.batch)
        return self._items

    def __len__(self) -> int:
        """Return the number of rows."""
        return _n_rows(self.batch)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        """Return one item, or a list of them for a slice."""
        return self._list()[index]

    def __iter__(self) -> Iterator[Item]:
        """Go through the items."""
        return iter(self._list())

    def __reduce__(self) -> tuple[type[Items], tuple[Batch]]:
        """Pickle the batch alone."""
        return Items, (self.batch,)

    def __repr__(self) -> str:
        """Return the number of rows and the keys."""
        return f"Items({len(self)} rows, keys {list(self.batch)})"


class Collate:
    """The collate function for a torch DataLoader over an AnnDataset: whole batches pass, lists of items are stacked.

    Given `Items` or a batch (a dict) it returns the batch as it is. Given a list of items it stacks each key: tensors
    and numeric arrays to ``[B, ...]``, one-row sparse CSR tensors to CSR ``[B, n_vars]``, numbers to a tensor ``[B]``,
    str to a list of str, anything else to a list. Nothing is ever filled in.

    Raises
    ------
    ValueError
        If there are no items, if their keys differ, if the tensors of one key differ in shape or layout, or if a key is
        a tensor or a number in one item and something else in another.

    Examples
    --------
    >>> Collate()([{"X": torch.tensor([1.0]), "obs_sex": "f"}, {"X": torch.tensor([2.0]), "obs_sex": "m"}])
    {'X': tensor([[1.],
            [2.]]), 'obs_sex': ['f', 'm']}
    """

    def __call__(self, items: Items | Batch | Sequence[Item]) -> Batch:
        """Return the batch."""
        if isinstance(items, Items):
            return sendable(items.batch)
        return sendable(items if isinstance(items, dict) else stack(items))

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return "Collate()"


class LoaderCollate(Collate):
    """A loader's collate function as its attribute: for the loader and for lists of items, not for another loader.

    Code that rebuilds a loader as a plain DataLoader takes the attributes along, this one too. The rows would then be
    shared out among ranks twice, and what the plain one does not know be lost, without a word.

    Parameters
    ----------
    collate_fn
        The function itself; kept as ``__wrapped__``.

    Raises
    ------
    RuntimeError
        If it is called with a batch that a dataset made for a plain DataLoader.

    Examples
    --------
    >>> LoaderCollate(Collate())([{"n": 1}, {"n": 2}])
    {'n': tensor([1, 2])}
    """

    __wrapped__: Any

    def __init__(self, collate_fn: Any) -> None:
        self.__wrapped__ = collate_fn.__wrapped__ if isinstance(collate_fn, LoaderCollate) else collate_fn

    def __call__(self, items: Any) -> Any:
        """Return what the function makes of a list of items."""
        if isinstance(items, Items):
            raise RuntimeError(
                "an annfeed loader was rebuilt as a plain DataLoader (as Accelerate's skip_first_batches does): ranks "
                'would share its rows out twice, and "index", "is_padding", windows and state be lost. Use the loader '
                "itself: accelerator.prepare(loader) of a recent Accelerate keeps it, and load_state_dict goes on in "
                "mid-epoch. For a DataLoader of your own take collate_fn=dataset.get_collate_fn()"
            )
        return self.__wrapped__(items)

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return f"LoaderCollate({self.__wrapped__!r})"


def split(batch: Batch) -> list[Item]:
    """Return the items of a batch: row i of each value, as views.

    A sparse CSR tensor ``[B, n_vars]`` gives ``[1, n_vars]`` tensors, as torch has no sparse CSR vector.

    Parameters
    ----------
    batch
        Every value, tensor or list, with one entry a row.

    Raises
    ------
    ValueError
        If a value has not one entry a row.

    Examples
    --------
    >>> split({"X": torch.eye(2), "obs_n": torch.tensor([5, 6])})
    [{'X': tensor([1., 0.]), 'obs_n': tensor(5)}, {'X': tensor([0., 1.]), 'obs_n': tensor(6)}]
    """
    n = _n_rows(batch)
    rows = {key: _rows(value) for key, value in batch.items()}
    return [{key: values[i] for key, values in rows.items()} for i in range(n)]


def stack(items: Sequence[Item]) -> Batch:
    """Return the batch of a list of items; `Collate` says how each type is stacked and what is raised.

    Examples
    --------
    >>> stack([{"n": 1}, {"n": 2}])
    {'n': tensor([1, 2])}
    """
    if len(items) == 0:
        raise ValueError("there are no items to collate: the batch is empty")
    first = items[0]
    for i, item in enumerate(items):
        if not isinstance(item, dict):
            raise ValueError(f"item {i} of the batch is a {type(item).__name__}, not a dict as an AnnDataset gives")
        if item.keys() != first.keys():
            key = next(iter(item.keys() ^ first.keys()))
            has, lacks = (0, i) if key in first else (i, 0)
            raise ValueError(
                f"item {lacks} of the batch has no key {key!r}, item {has} has; nothing is filled in: let the "
                "transform give every item the same keys"
            )
    return {key: _stack_values(key, [item[key] for item in items]) for key in first}


def apply_transform(
    transform: Transform | None,
    batch: Batch,
    totals: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Batch:
    """Return the batch after ``transform``: per-item transforms get items, batched ones the whole batch.

    A Compose of both kinds runs stage by stage, neighbours of one kind together. What a transform raises comes through
    unchanged. The items are views of the batch, so a transform that works in place changes the batch given.

    Parameters
    ----------
    transform
        What to apply; None for nothing.
    batch
        Every value, tensor or list, with one entry a row.
    totals
        float64 [B], what the rows of "X" sum to over all genes of their matrix; None where "X" has all of them.
    dtype
        Of "X" after the steps on it that come first; None for the usual one.

    Raises
    ------
    TypeError
        If a transform returns no dict.
    ValueError
        If a value has not one entry a row where items are wanted, the items returned cannot be stacked (`Collate`), or
        ``totals`` are of an "X" that was changed.

    Examples
    --------
    >>> class First(Transform):
    ...     def __call__(self, data_dict):
    ...         return {"first": data_dict["X"][0]}
    >>> apply_transform(First(), {"X": torch.tensor([[1.0, 2.0], [3.0, 4.0]])})
    {'first': tensor([1., 3.])}
    """
    if transform is None:
        return batch
    steps = steps_of(transform)
    known = None
    if totals is not None:
        known = RowTotals(totals, batch["X"] if is_on_x(steps[0]) else batch["X"].clone())
    for batched, members in groupby(steps, key=lambda member: member.batched):
        stage = list(members)
        if batched:
            batch = run_steps(stage, batch, known, dtype)
        elif items := split(batch):  # without rows there is nothing to call, nor to learn new keys from
            batch = stack([run_steps(stage, item) for item in items])
        dtype = None
    return batch


def _n_rows(batch: Batch) -> int:
    n: int | None = None
    for key, value in batch.items():
        sized = isinstance(value, list | tuple) or (isinstance(value, torch.Tensor | np.ndarray) and value.ndim > 0)
        rows = len(value) if sized else None
        if rows is None or (n is not None and rows != n):
            found = f"{rows} entries" if sized else f"a {type(value).__name__} without rows"
            expected = "one entry a row" if n is None else f"{n} entries, one a row, as the keys before it have"
            raise ValueError(f"batch key {key!r} is {found}; expected {expected}")
        n = rows
    return n or 0


def _rows(value: Any) -> Sequence[Any]:
    if isinstance(value, torch.Tensor):
        return _csr_rows(value) if value.layout is torch.sparse_csr else value.unbind(0)
    rows: Sequence[Any] = value
    return rows


def _csr_rows(x: torch.Tensor) -> list[torch.Tensor]:
    crow = x.crow_indices()
    columns, values = x.col_indices(), x.values()
    bounds = crow.tolist()
    return [
        _csr(crow.new_tensor([0, end - start]), columns[start:end], values[start:end], 1, x.shape[1])
        for start, end in pairwise(bounds)
    ]


def _stack_values(key: str, values: list[Any]) -> Any:
    values = [
        torch.as_tensor(v, device="cpu") if isinstance(v, np.ndarray) and v.dtype.kind in "biuf" else v for v in values
    ]
    kinds = {_kind(v) for v in values}
    if len(kinds) > 1 and kinds & {"tensor", "number"}:
        raise ValueError(
            f"key {key!r} is a {type(values[0]).__name__} in item 0 of the batch and has other types in others "
            f"({sorted({type(v).__name__ for v in values})}); let the transform give every item the same type"
        )
    if kinds == {"tensor"}:
        return _stack_tensors(key, values)
    return torch.from_numpy(np.asarray(values)) if kinds == {"number"} else values


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return "tensor"
    return "number" if isinstance(value, bool | int | float | np.number | np.bool_) else "other"


def _stack_tensors(key: str, values: list[torch.Tensor]) -> torch.Tensor:
    shapes = {tuple(v.shape): i for i, v in reversed(list(enumerate(values)))}
    if len(shapes) > 1:
        found = ", ".join(f"{shape} in item {i}" for shape, i in sorted(shapes.items(), key=lambda pair: pair[1])[:4])
        raise ValueError(f"key {key!r} has tensors of different shapes in one batch: {found}; they cannot be stacked")
    layouts = {v.layout for v in values}
    if len(layouts) > 1:
        raise ValueError(f"key {key!r} is sparse in some items of the batch and not in others; make them all alike")
    return _concat_csr(values) if layouts == {torch.sparse_csr} else torch.stack(values)


def _concat_csr(values: list[torch.Tensor]) -> torch.Tensor:
    lengths = torch.cat([v.crow_indices().diff() for v in values])
    crow = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(values[0].crow_indices().dtype)
    columns, data = torch.cat([v.col_indices() for v in values]), torch.cat([v.values() for v in values])
    return _csr(crow, columns, data, len(lengths), values[0].shape[1])


def _csr(crow: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, n_rows: int, n_columns: int) -> torch.Tensor:
    return compressed(crow, columns, values, (n_rows, n_columns))
