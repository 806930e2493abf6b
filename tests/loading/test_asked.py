"""The bytes of the next window are asked for before a window is decoded, and forgotten when nobody will read it."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from annfeed.loading.readahead import read_ahead
from annfeed.order.windows import Window


class Asked:
    """What a dataset gives for bytes that it was asked for."""


class Rows:
    """A dataset that notes what it is asked for, and fails at window ``bad``."""

    def __init__(self, bad: int | None = None) -> None:
        self.events: list[str] = []
        self.asked: list[weakref.ref[Asked]] = []
        self._bad = bad

    def ask(self, positions: Any) -> Asked:
        self.events.append(f"ask {positions[0]}")
        asked = Asked()
        self.asked.append(weakref.ref(asked))
        return asked

    def load(self, positions: Any) -> Rows:
        self.events.append(f"load {positions[0]}")
        if positions[0] == self._bad:
            raise OSError("the disk is gone")
        return self

    def batch(self, start: int, stop: int) -> dict[str, Any]:
        return {"X": np.arange(start, stop)}

    def read_stats(self) -> dict[str, int]:
        return {}


def windows(n: int) -> list[Window]:
    return [Window(0, i, np.array([i, i]), np.array([0, 1, 2])) for i in range(n)]


def test_each_window_is_asked_for_once_and_most_before_the_one_ahead_of_them_is_read() -> None:
    rows = Rows()
    assert len(list(read_ahead(rows, iter(windows(5)), 2))) == 10
    asks = [event for event in rows.events if event.startswith("ask")]
    assert asks == [f"ask {i}" for i in range(5)]
    place = rows.events.index
    assert all(place(f"ask {i}") < place(f"load {i}") for i in range(5))
    # The first may be read before the caller's thread has drawn the next.
    assert sum(place(f"ask {i + 1}") < place(f"load {i}") for i in range(4)) >= 2


@pytest.mark.parametrize("bad", [0, 1, 3])
def test_nothing_that_was_asked_for_outlives_an_error(bad: int) -> None:
    rows = Rows(bad)
    with pytest.raises(OSError, match="the disk is gone") as error:
        list(read_ahead(rows, iter(windows(5)), 2))
    assert error.value.__traceback__ is not None  # it is held here, with all frames that it came through
    assert len(rows.asked) > 1
    assert all(asked() is None for asked in rows.asked)


def test_nothing_that_was_asked_for_outlives_a_loop_that_is_left() -> None:
    rows = Rows()
    batches = read_ahead(rows, iter(windows(50)), 2)
    next(batches)
    batches.close()
    assert all(asked() is None for asked in rows.asked)
