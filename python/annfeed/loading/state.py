"""Where a loader stands in its epoch, and the small dict that tells it: what is saved with a model and loaded again.

The order is a function of the epoch's plan, so a place in it is three numbers: epoch, seed, batches delivered. Beside
them a state says what the order is made of, so that a loader of another order refuses it. Nothing here reads a row.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from annfeed.arrays import digest_of
from annfeed.order.epoch import EpochPlan
from annfeed.order.sampler_plan import SamplerPlan
from annfeed.order.weights import Weighting
from annfeed.order.windows import Window

#: Of the dict; a state of another version is refused.
VERSION = 1

#: Fields of a plan that are no part of what makes the order, or are compared in their own words.
_OWN = ("seed", "epoch", "rank", "window", "first_window")


@dataclass
class Position:
    """A place in an epoch.

    Parameters
    ----------
    epoch
        Number of the epoch.
    seed
        The seed that makes its order; None where none was drawn yet.
    batch
        Batches delivered by each rank.
    n_batches
        Batches of the epoch; None where nobody knows.
    digest
        Of the rows delivered, where a user's sampler gave them; None where the order needs no proof.
    """

    epoch: int
    seed: int | None = None
    batch: int = 0
    n_batches: int | None = None
    digest: str | None = None


class Progress:
    """Where a loader is: at a place that was loaded and not yet begun, or in the epoch that it delivers.

    Examples
    --------
    >>> progress = Progress()
    >>> running = progress.begin(epoch=0, seed=7, n_batches=2)
    >>> progress.delivered(running)
    >>> progress.at(next_epoch=1)
    Position(epoch=0, seed=7, batch=1, n_batches=2, digest=None)
    >>> progress.delivered(running)
    >>> progress.at(next_epoch=1)
    Position(epoch=1, seed=None, batch=0, n_batches=None, digest=None)
    """

    def __init__(self) -> None:
        self.loaded: Position | None = None
        self._running: Position | None = None

    def load(self, position: Position) -> None:
        """Begin the next epoch at ``position``."""
        self.loaded, self._running = position, None

    def set_epoch(self, epoch: int) -> None:
        """Forget a place in any other epoch."""
        if self.loaded is not None and self.loaded.epoch != epoch:
            self.loaded = None
        if self._running is not None and self._running.epoch != epoch:
            self._running = None

    def begin(self, epoch: int, seed: int | None, n_batches: int | None) -> Position:
        """Return the place to go on from in the epoch that begins: the loaded one, if it is of this epoch, once."""
        loaded, self.loaded = self.loaded, None
        self._running = Position(epoch, seed, n_batches=n_batches)
        if loaded is not None and loaded.epoch == epoch:
            self._running.batch, self._running.digest = loaded.batch, loaded.digest
        return self._running

    def delivered(self, position: Position, digest: str | None = None) -> None:
        """Count a batch; of several iterators at once, the last one to deliver says where the loader is."""
        position.batch += 1
        position.digest = digest
        if self.loaded is None:
            self._running = position

    def ended(self, position: Position) -> None:
        """Know that there are no more batches."""
        position.n_batches = position.batch

    def at(self, next_epoch: int) -> Position:
        """Return the place; after an epoch's last batch it is the beginning of ``next_epoch``."""
        position = self.loaded or self._running
        if position is None or position.batch == position.n_batches:
            return Position(next_epoch)
        return position


def order_of(plan: EpochPlan | SamplerPlan, seed: int | None, world: int) -> dict[str, Any]:
    """Return what the order of a loader's epochs is made of, in plain values; arrays as a digest.

    The window is part of it only where rows are shuffled within windows.

    Examples
    --------
    >>> order_of(EpochPlan(n_rows=4, batch_size=2, window=2), seed=None, world=1)["batch_size"]
    2
    """
    if isinstance(plan, SamplerPlan):
        order: dict[str, Any] = {"sampler": type(plan.sampler).__name__, "n_rows": plan.n_rows}
        order |= {"batch_size": plan.batch_size, "drop_last": plan.drop_last}
        return order | {"seed": seed, "world": world}
    order = {f.name: _plain(getattr(plan, f.name)) for f in fields(plan) if f.init and f.name not in _OWN}
    in_windows = plan.shuffle and (plan.block_size > 1 or plan.block_starts is not None)
    order["chunk_size"] = plan.window if in_windows else None
    return order | {"seed": seed, "world": world}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value.digest) if isinstance(value, Weighting) else digest_of(np.asarray(value))


def as_state(position: Position, order: Mapping[str, Any], data: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """Return the dict to save: numbers, texts and None, in two dicts and at the top."""
    place = {"version": VERSION, "epoch": position.epoch, "batch": position.batch, "seed": position.seed}
    return {**place, "rank": rank, "rows": position.digest, "order": dict(order), "data": dict(data)}


def as_position(state: Any, order: Mapping[str, Any], data: Mapping[str, Any], rank: int, what: str) -> Position:
    """Return the place that a state tells, having compared it with the loader that is to go on from it.

    Raises
    ------
    ValueError
        If it is no state of a loader, or of another order, or of other data; the message tells all differences.
    """
    keys = {"version", "epoch", "batch", "seed", "rank", "rows", "order", "data"}
    if not isinstance(state, Mapping) or not state.keys() >= {"version"}:
        raise ValueError(f"{what}: {_short(state)} is no state of a loader; pass what its state_dict() returned")
    if state["version"] != VERSION or not state.keys() >= keys:
        raise ValueError(
            f"{what}: the state has version {state['version']} and keys {sorted(map(str, state))}; expected "
            f"version {VERSION}. Load it with the annfeed that saved it"
        )
    found = [
        f"{name} is {here.get(name)!r}, the state has {there.get(name)!r}"
        for here, there in ((order, state["order"]), (data, state["data"]))
        for name in {**here, **there}
        if here.get(name) != there.get(name)
    ]
    if found:
        raise ValueError(
            f"{what}: the state does not fit: {'; '.join(found)}. Make dataset and loader as they were when it was "
            "saved, or begin anew without it"
        )
    # Each rank delivered as many batches, but each saw rows of its own.
    digest = state["rows"] if state["rank"] == rank else None
    return Position(int(state["epoch"]), state["seed"], int(state["batch"]), digest=digest)


def windows_from(plan: EpochPlan | SamplerPlan, position: Position, digests: Digests | None) -> Iterator[Window]:
    """Give the windows of an epoch from a place on: of its window, only the batches that are still to come.

    Raises
    ------
    ValueError
        If a user's sampler does not give the rows before the place again; while iterating.

    Examples
    --------
    >>> plan = EpochPlan(n_rows=8, batch_size=2, window=4, shuffle=False, first_window=4)
    >>> [window.rows.tolist() for window in windows_from(plan, Position(0, batch=1), None)]
    [[2, 3], [4, 5, 6, 7]]
    """
    if isinstance(plan, EpochPlan):
        windows = plan.windows(plan.window_of(position.batch)) if position.batch < plan.n_batches else iter(())
    else:
        windows = plan.windows()
    start, wanted = position.batch, position.digest
    for window in windows:
        n_done = min(max(start - window.first_batch, 0), window.n_batches)
        if digests is not None:
            digests.add(window, n_done)
        if digests is not None and wanted is not None and 0 < start <= window.first_batch + window.n_batches:
            _check_again(digests, wanted, start, plan)
            wanted = None
        if n_done < window.n_batches:
            yield window.of_batches(n_done, window.n_batches) if n_done else window
    if digests is not None and wanted is not None and start:
        _check_again(digests, "", start, plan)


def _check_again(digests: Digests, wanted: str, n_batches: int, plan: Any) -> None:
    if digests.skipped != wanted:
        raise ValueError(
            f"the {type(plan.sampler).__name__} does not give the {n_batches} batches again that came before the state "
            "was saved. Seed it as it was, call its set_epoch, or begin anew without the state"
        )


def check_positions(plan: EpochPlan, place: Position) -> None:
    """Note a user's order of the epoch, or refuse it where the epoch began with another one.

    Raises
    ------
    ValueError
        If it gives other positions than when the state was saved.
    """
    if plan.positions is None:
        return
    found = digest_of(plan.positions)
    if place.batch and place.digest not in (None, found):
        raise ValueError(
            f"order({plan.epoch}) gives other positions than it gave before the state was saved, after {place.batch} "
            "batches of them. Let it depend on the number of the epoch alone, or begin anew without the state"
        )
    place.digest = found


class Digests:
    """Digests of the rows up to each batch of an epoch: proof that a user's sampler gives an order again.

    Windows are drawn ahead of the batches delivered, so the digests wait here.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=8)
        self._waiting: deque[str] = deque()
        #: Of the batches that were skipped.
        self.skipped = ""

    def add(self, window: Window, n_skipped: int) -> None:
        """Take the batches of a window in, of which the first ``n_skipped`` are not delivered again."""
        for number, batch in enumerate(window.batches):
            # The length, too: the same rows in other batches are another order.
            self._hash.update(np.append(batch, len(batch)).tobytes())
            if number < n_skipped:
                self.skipped = self._hash.hexdigest()
            else:
                self._waiting.append(self._hash.hexdigest())

    def next(self) -> str:
        """Return the digest up to the batch that is delivered now."""
        return self._waiting.popleft()


def _short(value: Any) -> str:
    return f"{value!r:.60}"
