"""A batch of sets: it is read as one batch of rows, cells first, and then divided into cells and controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from annfeed.batches.items import Batch
from annfeed.batches.keys import CONTROL, IS_PADDING, IS_REPEAT, SET, check_returned
from annfeed.memory.sparse import compressed
from annfeed.order.windows import SetMarks

#: Key of the `SetsOfBatch` in a batch between `batches_of` and `RowReader.postprocess`; transforms do not see it.
SETS = "annfeed: the sets of a batch"


@dataclass(frozen=True, eq=False)
class SetsOfBatch:
    """What the rows of a batch are for.

    Parameters
    ----------
    n_cells
        Cells, which come first; the other rows are controls. None if there are none.
    cells
        Marks of the cells, tensors by key.
    control_set
        Number of the set of each control.
    """

    n_cells: int | None
    cells: dict[str, torch.Tensor]
    control_set: torch.Tensor

    def merged(self, parts: Sequence[Batch]) -> Batch:
        """Return the batch of cells and of controls, as `parts_of` divides it, with the marks.

        A ValueError if a transform put anything under the keys of marks or of controls.
        """
        for part in parts:
            check_returned(part, has_controls=len(parts) > 1)
        batch = {**parts[0], **self.cells}
        for part in parts[1:]:
            batch |= {f"{CONTROL}{key}": value for key, value in part.items()}
            batch[f"{CONTROL}{SET}"] = self.control_set
        return batch


def marks_of(marks: SetMarks, offsets: Sequence[int]) -> Iterator[SetsOfBatch]:
    """Yield what the rows of each batch of a window are for.

    Parameters
    ----------
    marks, offsets
        Of the window.
    """
    for number in range(len(offsets) - 1):
        start, stop = offsets[number], offsets[number + 1]
        n_cells = None if marks.n_cells is None else int(marks.n_cells[number])
        end = stop if n_cells is None else start + n_cells
        cells = {SET: marks.set_of[start:end], IS_REPEAT: marks.is_repeat[start:end]}
        if marks.is_padding is not None:
            cells[IS_PADDING] = marks.is_padding[start:end]
        # Copies, because the marks of a window are one array.
        tensors = {key: torch.from_numpy(value.copy()) for key, value in cells.items()}
        yield SetsOfBatch(n_cells, tensors, torch.from_numpy(marks.set_of[end:stop].copy()))


def parts_of(batch: Batch, sets: SetsOfBatch) -> list[Batch]:
    """Return the cells of a batch of rows, and the controls if there are any, as views.

    Examples
    --------
    >>> sets = SetsOfBatch(1, {}, torch.zeros(2))
    >>> parts_of({"X": torch.tensor([[1.0], [2.0], [3.0]]), "obs_drug": ["a", "D", "D"]}, sets)[1]
    {'X': tensor([[2.],
            [3.]]), 'obs_drug': ['D', 'D']}
    """
    if sets.n_cells is None:
        return [batch]
    n = sets.n_cells
    return [
        {key: _rows(value, 0, n) for key, value in batch.items()},
        {key: _rows(value, n, len(value)) for key, value in batch.items()},
    ]


def _rows(value: Any, start: int, stop: int) -> Any:
    if not isinstance(value, torch.Tensor) or value.layout is not torch.sparse_csr:
        return value[start:stop]
    pointers = value.crow_indices()[start : stop + 1]
    first, last = int(pointers[0]), int(pointers[-1])
    # Sparse tensors take no views of which the first pointer is not 0.
    return compressed(
        pointers - first if first else pointers,
        value.col_indices()[first:last],
        value.values()[first:last],
        (stop - start, value.shape[1]),
    )
