"""An epoch whose order comes from a sampler of the user's: positions in, windows out.

Our own orders are in order/epoch.py.
"""

import operator
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import numpy as np

from annfeed.arrays import Int64Array
from annfeed.order.windows import Ramp, Window, integer, joined


@dataclass(frozen=True, eq=False, kw_only=True)
class SamplerPlan:
    """The windows of an epoch whose order comes from a user's sampler, read from it as they are needed.

    Parameters
    ----------
    sampler
        Iterable of positions, or, with `batch_size=None`, of sequences of positions (a batch sampler). An iterable that
        can be iterated once serves one epoch.
    n_rows
        Rows of the dataset: positions must lie in 0..n_rows-1.
    batch_size
        Rows of a batch; None: batches as the batch sampler gives them.
    window, first_window
        As in `EpochPlan`. Batches of a batch sampler are kept whole: its windows end with the batch that fills them.
    drop_last
        Leave out a last batch that is short; with a batch sampler it must be False.
    world
        Number of ranks. Nothing is shared out here; with several, windows say that none of their rows is padding.

    Raises
    ------
    TypeError
        The sampler gives something that is no integer (or no sequence of integers); raised while iterating.
    ValueError
        An option out of its range, or an empty batch.
    IndexError
        A position outside 0..n_rows-1; raised while iterating.

    Examples
    --------
    >>> plan = SamplerPlan(sampler=[4, 0, 4], n_rows=5, batch_size=2, window=2)
    >>> [window.rows.tolist() for window in plan.windows()], len(plan)
    ([[4, 0], [4]], 2)
    """

    sampler: Iterable[Any]
    n_rows: int
    batch_size: int | None
    window: int
    first_window: int = 1024
    drop_last: bool = False
    world: int = 1

    def __post_init__(self) -> None:
        for name, least in {"n_rows": 0, "window": 1, "first_window": 1, "world": 1}.items():
            object.__setattr__(self, name, integer(name, getattr(self, name), least))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", integer("batch_size", self.batch_size, 1))
        elif self.drop_last:
            raise ValueError("drop_last=True given with a batch sampler; the batch sampler alone makes its batches")

    def __len__(self) -> int:
        """Number of batches; TypeError where the sampler has no length."""
        n = len(cast(Sized, self.sampler))
        if self.batch_size is None:
            return n
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def windows(self) -> Iterator[Window]:
        """The windows in turn; each takes from the sampler no more than its own positions."""
        ramp = Ramp(self.batch_size or 1, self.window, self.first_window)
        n_padding = 0 if self.world > 1 else None
        index = first_batch = n_held = 0
        held: list[Int64Array] = []
        for batch in self._batches():
            held.append(batch)
            n_held += len(batch)
            if n_held >= ramp.start(index + 1) - ramp.start(index):
                yield joined(index, first_batch, held, n_padding)
                index, first_batch, n_held, held = index + 1, first_batch + len(held), 0, []
        if held:
            yield joined(index, first_batch, held, n_padding)

    def _batches(self) -> Iterator[Int64Array]:
        if self.batch_size is None:
            for batch in self.sampler:
                yield self._checked(batch)
            return
        positions = iter(self.sampler)
        while taken := list(islice(positions, self.batch_size)):
            if len(taken) < self.batch_size and self.drop_last:
                return
            yield self._checked(taken)

    def _checked(self, batch: Any) -> Int64Array:
        try:
            rows = np.fromiter(map(operator.index, batch), dtype=np.int64)
        except TypeError as error:
            wanted = "sequences of integers" if self.batch_size is None else "integers (or pass it as batch_sampler)"
            raise TypeError(f"the sampler gave {batch!r:.80}; expected {wanted}") from error
        if not rows.size:
            raise ValueError("the batch sampler gave an empty batch; expected at least one position")
        outside = rows[(rows < 0) | (rows >= self.n_rows)]
        if outside.size:
            raise IndexError(f"the sampler gave position {outside[0]}; the dataset has rows 0..{self.n_rows - 1}")
        return rows
