"""What tests of the loader share: transforms, and what a loader read."""

from typing import Any

import pytest

from annfeed import AnnDataset, Transform

#: Rows in no order, some of them twice, more than fit in one window of the tests.
UNSORTED = [17, 3, 39, 3, 0, 17, 17, 21, 38, 1, 20, 8, 9, 7, 30]


class Plus(Transform):
    """A user's transform: items, no batches."""

    def __call__(self, data_dict):
        data_dict["sum"] = data_dict["X"].sum() + data_dict["obs_row"]
        return data_dict


def count_reads(dataset: AnnDataset, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each read of the matrix's source, a file, from now on."""
    source = dataset.reader.matrices["X"].source
    reads: list[int] = []

    def noted(real: Any) -> Any:
        def read(rows: Any, *more: Any) -> Any:
            reads.append(len(rows))
            return real(rows, *more)

        return read

    for name in ("read", "read_or_leave"):
        monkeypatch.setattr(source, name, noted(getattr(source, name)))
    return reads
