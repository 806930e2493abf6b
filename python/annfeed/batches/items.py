"""Batches are split into items, items are stacked to batches, and transforms are applied to both.

A dataset reads whole batches, but torch's collate functions and users' transforms may take items.
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
    """A batch that is also a sequence of its items, as ``AnnDataset.__getitems__`` returns it.

    `Collate` takes ``batch`` itself; torch's default_collate and users' collate functions see items. Items are views of
    the batch, and are made when they are first used.

    Parameters
    ----------
    batch
        Tensors or lists by key, each with one entry per row.

    Raises
    ------
    ValueError
        If a value does not have one entry per row, when the length or the items are used.

    Examples
    --------
    >>> items = Items({"X": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "obs_sex": ["f", "m"]})
    >>> len(items), items[1]
    (2, {'X': tensor([3., 4.]), 'obs_sex': 'm'})
    """

    def __new__(cls, batch: Batch | list[Item]) -> Any:
        """Return items of a batch; of a list of items, the batch, as torch's default_convert calls it."""
        return stack(batch) if isinstance(batch, list) else super().__new__(cls)

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._items: list[Item] | None = None

    def _list(self) -> list[Item]:
        # Once, because default_collate iterates over all items for each key.
        if self._items is None:
            self._items = split(self.batch)
        return self._items

    def __len__(self) -> int:
        return _n_rows(self.batch)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        return self._list()[index]

    def __iter__(self) -> Iterator[Item]:
        return iter(self._list())

    def __reduce__(self) -> tuple[type[Items], tuple[Batch]]:
        return Items, (self.batch,)

    def __repr__(self) -> str:
        return f"Items({len(self)} rows, keys {list(self.batch)})"


class Collate:
    """The collate function for a torch DataLoader over an AnnDataset.

    Items that were read together, as ``dataset[[3, 1]]``, and batches (dicts) are returned as they are. A list of items
    is stacked by key: tensors and numeric arrays to ``[B, ...]``, one-row sparse CSR tensors to CSR ``[B, n_vars]``,
    numbers to a tensor ``[B]``, other values to a list.

    Raises
    ------
    ValueError
        If there are no items, their keys differ, the tensors of a key differ in shape or layout, or a key is a tensor
        or a number in one item and something else in another.

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
        return "Collate()"


class LoaderCollate(Collate):
    """The ``collate_fn`` attribute of a WindowLoader, which raises in a plain loader that was rebuilt from attributes.

    Such a loader would divide the rows among ranks twice, and lose the index, the marks of padding and the state.

    Parameters
    ----------
    collate_fn
        The function itself; kept as ``__wrapped__``.

    Raises
    ------
    RuntimeError
        If it is called with the `Items` that a dataset makes for a plain DataLoader.

    Examples
    --------
    >>> LoaderCollate(Collate())([{"n": 1}, {"n": 2}])
    {'n': tensor([1, 2])}
    """

    __wrapped__: Any

    def __init__(self, collate_fn: Any) -> None:
        self.__wrapped__ = collate_fn.__wrapped__ if isinstance(collate_fn, LoaderCollate) else collate_fn

    def __call__(self, items: Any) -> Any:
        """Return the collated items."""
        if isinstance(items, Items):
            raise RuntimeError(
                "an annfeed loader was rebuilt as a plain DataLoader (as Accelerate's skip_first_batches does): ranks "
                'would share its rows out twice, and "index", "is_padding", windows and state be lost. Use the loader '
                "itself: accelerator.prepare(loader) of a recent Accelerate keeps it, and load_state_dict goes on in "
                "mid-epoch. For a DataLoader of your own take collate_fn=dataset.get_collate_fn()"
            )
        return self.__wrapped__(items)

    def __repr__(self) -> str:
        return f"LoaderCollate({self.__wrapped__!r})"


def split(batch: Batch) -> list[Item]:
    """Return the items of a batch: row i of each value, as views; ValueError if a value has not one entry per row.

    A sparse CSR tensor ``[B, n_vars]`` gives ``[1, n_vars]`` tensors, because torch has no sparse CSR vector.

    Examples
    --------
    >>> split({"X": torch.eye(2), "obs_n": torch.tensor([5, 6])})
    [{'X': tensor([1., 0.]), 'obs_n': tensor(5)}, {'X': tensor([0., 1.]), 'obs_n': tensor(6)}]
    """
    n = _n_rows(batch)
    rows = {key: _rows(value) for key, value in batch.items()}
    return [{key: values[i] for key, values in rows.items()} for i in range(n)]


def stack(items: Sequence[Item]) -> Batch:
    """Return the batch of a list of items, as `Collate` describes.

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

    A Compose of both kinds runs in stages, neighbours of one kind together. Items are views of the batch, so a
    transform that works in place changes ``batch``.

    Parameters
    ----------
    transform
        The transform; None for none.
    batch
        Tensors or lists by key, each with one entry per row.
    totals
        Sums of the rows of "X" over all genes of their matrix, float64 [B]; None if "X" has all genes.
    dtype
        dtype of "X" after the first steps on it; None as in `annfeed.transforms.base.compute`.

    Raises
    ------
    TypeError
        If a transform does not return a dict.
    ValueError
        If a batch cannot be split into items, or items cannot be stacked (`Collate`), or ``totals`` are needed after a
        transform that changed "X".

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
        elif items := split(batch):  # without rows there are no items to transform
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
