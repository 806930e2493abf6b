"""`SamplerPlan`: an epoch with the positions of a user's sampler. annfeed's own orders are in order/epoch.py."""

import hashlib
import operator
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import numpy as np

from annfeed.arrays import Int64Array, integer
from annfeed.order.windows import WarmUp, Window, joined


@dataclass(frozen=True, eq=False, kw_only=True)
class SamplerPlan:
    """The windows of an epoch whose positions come from a user's sampler, drawn as they are needed.

    Parameters
    ----------
    sampler
        Iterable of positions, or, with `batch_size=None`, of sequences of positions (a batch sampler). An iterator
        serves one epoch.
    n_rows
        Rows of the dataset: positions must lie in 0..n_rows-1.
    batch_size
        Rows of a batch; None for the batches of a batch sampler.
    window, first_window
        As in `EpochPlan`. Batches of a batch sampler are kept whole: a window ends with the batch that fills it.
    drop_last
        Leave out a last batch that is not full; with a batch sampler it must be False.
    world
        Number of ranks. Rows are not divided; with several ranks, windows have `n_padding` 0 instead of None.
    keeps_proof
        Digest the positions of each batch, for `next_proof`.

    Raises
    ------
    TypeError
        While iterating, if the sampler gives something else than integers (or sequences of integers).
    ValueError
        If an option is out of range; while iterating, for an empty batch.
    IndexError
        While iterating, for a position outside 0..n_rows-1.

    Examples
    --------
    >>> plan = SamplerPlan(sampler=[4, 0, 4], n_rows=5, batch_size=2, window=2)
    >>> [window.positions.tolist() for window in plan.windows()], len(plan)
    ([[4, 0], [4]], 2)
    """

    sampler: Iterable[Any]
    n_rows: int
    batch_size: int | None
    window: int
    first_window: int = 1024
    drop_last: bool = False
    world: int = 1
    keeps_proof: bool = False
    _proofs: deque[str] = field(default_factory=deque, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, least in {"n_rows": 0, "window": 1, "first_window": 1, "world": 1}.items():
            object.__setattr__(self, name, integer(name, getattr(self, name), least))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", integer("batch_size", self.batch_size, 1))
        elif self.drop_last:
            raise ValueError("drop_last=True given with a batch sampler; the batch sampler alone makes its batches")

    def __len__(self) -> int:
        """Return the number of batches; TypeError if the sampler has no length."""
        n = len(cast(Sized, self.sampler))
        if self.batch_size is None:
            return n
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    @property
    def n_batches(self) -> int | None:
        """Number of batches; None if the sampler has no length."""
        try:
            return len(self)
        except TypeError:
            return None

    def windows(self, n_done: int = 0, proof: str | None = None) -> Iterator[Window]:
        """Return the windows that are left after ``n_done`` batches; each draws only its own positions.

        Parameters
        ----------
        n_done
            Delivered batches, which are skipped in the sampler.
        proof
            The `next_proof` of the last of them; None if unknown. It needs `keeps_proof`.

        Raises
        ------
        ValueError
            While iterating, if the sampler gives other positions for the delivered batches.
        """
        hashed = hashlib.blake2b(digest_size=8)
        self._proofs.clear()
        n_seen = 0
        for window in self._windows():
            for batch in window.batches if self.keeps_proof else ():
                # With the length: the same positions in other batches are another order.
                hashed.update(np.append(batch, len(batch)).tobytes())
                n_seen += 1
                if n_seen > n_done:
                    self._proofs.append(hashed.hexdigest())
                elif n_seen == n_done:
                    self._check(hashed.hexdigest(), proof, n_done)
            if window.first_batch + window.n_batches > n_done:
                yield window.after(n_done)
        if n_seen < n_done:
            self._check("", proof, n_done)

    def next_proof(self) -> str | None:
        """Return the digest of the positions up to the delivered batch; to be called once for each batch."""
        # Windows are drawn ahead of delivered batches.
        return self._proofs.popleft()

    def state(self) -> dict[str, Any]:
        """Return what determines the order, for saved states."""
        order = {"sampler": type(self.sampler).__name__, "n_rows": self.n_rows}
        return {**order, "batch_size": self.batch_size, "drop_last": self.drop_last}

    def _check(self, found: str, proof: str | None, n_done: int) -> None:
        if proof not in (None, found):
            raise ValueError(
                f"the {type(self.sampler).__name__} does not give the {n_done} batches again that came before the "
                "state was saved. Seed it as it was, call its set_epoch, or begin anew without the state"
            )

    def _windows(self) -> Iterator[Window]:
        warm_up = WarmUp(self.batch_size or 1, self.window, self.first_window)
        n_padding = 0 if self.world > 1 else None
        index = first_batch = n_held = 0
        held: list[Int64Array] = []
        for batch in self._batches():
            held.append(batch)
            n_held += len(batch)
            if n_held >= warm_up.start(index + 1) - warm_up.start(index):
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
            positions = np.fromiter(map(operator.index, batch), dtype=np.int64)
        except TypeError as error:
            wanted = "sequences of integers" if self.batch_size is None else "integers (or pass it as batch_sampler)"
            raise TypeError(f"the sampler gave {batch!r:.80}; expected {wanted}") from error
        if not positions.size:
            raise ValueError("the batch sampler gave an empty batch; expected at least one position")
        outside = positions[(positions < 0) | (positions >= self.n_rows)]
        if outside.size:
            raise IndexError(f"the sampler gave position {outside[0]}; the dataset has rows 0..{self.n_rows - 1}")
        return positions
