"""The place of a loader in its epoch, and the state dict to save and load it.

The order is a function of the epoch's plan, so a place is three numbers: epoch, seed, batches delivered. A state also
holds what determines the order, so that a loader with another order refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Version of the dict; a state of another version is refused.
VERSION = 1


@dataclass
class Position:
    """A place in an epoch.

    Parameters
    ----------
    epoch
        Number of the epoch.
    seed
        The seed of its order; None if none was drawn yet.
    batch
        Batches delivered by each rank.
    n_batches
        Batches of the epoch; None if unknown.
    digest
        Digest of the rows delivered from a user's sampler; None for annfeed's orders.
    """

    epoch: int
    seed: int | None = None
    batch: int = 0
    n_batches: int | None = None
    digest: str | None = None


class Progress:
    """The place of a loader: one that was loaded and not yet begun, or the one in the epoch that it delivers.

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
        """Discard a place in any other epoch."""
        if self.loaded is not None and self.loaded.epoch != epoch:
            self.loaded = None
        if self._running is not None and self._running.epoch != epoch:
            self._running = None

    def begin(self, epoch: int, seed: int | None, n_batches: int | None) -> Position:
        """Return the place at which the epoch begins: the loaded one if it is in this epoch (once), else its start."""
        loaded, self.loaded = self.loaded, None
        self._running = Position(epoch, seed, n_batches=n_batches)
        if loaded is not None and loaded.epoch == epoch:
            self._running.batch, self._running.digest = loaded.batch, loaded.digest
        return self._running

    def delivered(self, position: Position, digest: str | None = None) -> None:
        """Count a batch; if several iterators run, the one that delivered last is the place of the loader."""
        position.batch += 1
        position.digest = digest
        if self.loaded is None:
            self._running = position

    def ended(self, position: Position) -> None:
        """Note that the epoch has no more batches."""
        position.n_batches = position.batch

    def at(self, next_epoch: int) -> Position:
        """Return the place; after the last batch of an epoch, the beginning of ``next_epoch``."""
        position = self.loaded or self._running
        if position is None or position.batch == position.n_batches:
            return Position(next_epoch)
        return position


def as_state(position: Position, order: Mapping[str, Any], data: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """Return the state to save, a dict of numbers, texts, None, and two such dicts."""
    place = {"version": VERSION, "epoch": position.epoch, "batch": position.batch, "seed": position.seed}
    return {**place, "rank": rank, "rows": position.digest, "order": dict(order), "data": dict(data)}


def order_of(state: Any, what: str) -> Mapping[str, Any]:
    """Return the part of a state that determines the order.

    Raises
    ------
    ValueError
        If it is not a state of a loader.
    """
    keys = {"version", "epoch", "batch", "seed", "rank", "rows", "order", "data"}
    if not isinstance(state, Mapping) or not state.keys() >= {"version"}:
        raise ValueError(f"{what}: {_short(state)} is no state of a loader; pass what its state_dict() returned")
    if state["version"] != VERSION or not state.keys() >= keys:
        raise ValueError(
            f"{what}: the state has version {state['version']} and keys {sorted(map(str, state))}; expected "
            f"version {VERSION}. Load it with the annfeed that saved it"
        )
    order: Mapping[str, Any] = state["order"]
    return order


#: Names of arguments whose names in states are those of version 0.1.
_SHOWN = {"chunk_size": "window"}


def as_position(
    state: Mapping[str, Any], order: Mapping[str, Any], data: Mapping[str, Any], rank: int, what: str
) -> Position:
    """Return the place in a state, after comparing the state with the loader.

    Raises
    ------
    ValueError
        If it is a state of another order or other data; the message names all differences.
    """
    found = [
        f"{_SHOWN.get(name, name)} is {here.get(name)!r}, the state has {there.get(name)!r}"
        for here, there in ((order, state["order"]), (data, state["data"]))
        for name in {**here, **there}
        if here.get(name) != there.get(name)
    ]
    if found:
        raise ValueError(
            f"{what}: the state does not fit: {'; '.join(found)}. Make dataset and loader as they were when it was "
            "saved, or begin anew without it"
        )
    # All ranks delivered the same number of batches, but each its own rows.
    digest = state["rows"] if state["rank"] == rank else None
    return Position(int(state["epoch"]), state["seed"], int(state["batch"]), digest=digest)


def _short(value: Any) -> str:
    return f"{value!r:.60}"
