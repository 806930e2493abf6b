"""`Columns`: obs columns as codes, of which an order is made; `KnownLabels` tells later whether they are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from annfeed.arrays import digest_of
from annfeed.errors import StaleDataError
from annfeed.h5ad.identity import n_own_writes
from annfeed.loading.description import in_a_line
from annfeed.order.groups import joined_codes

if TYPE_CHECKING:
    from annfeed.loading.protocols import Rows

Codes = npt.NDArray[Any]


class Columns:
    """Obs columns of a dataset as codes, each read once."""

    def __init__(self, dataset: Rows) -> None:
        self._dataset = dataset
        self._read: dict[str, tuple[Codes, list[Any]]] = {}
        self._n_writes = n_own_writes()

    @property
    def place(self) -> str:
        """The words for the dataset in messages."""
        return in_a_line(self._dataset)

    def one(self, name: str) -> tuple[Codes, list[Any]]:
        """Return the code of each row, -1 for missing values, and the label of each code."""
        if name not in self._read:
            self._read[name] = self._dataset.reader.label_codes(name)
        return self._read[name]

    def joined(self, names: Sequence[str]) -> tuple[Codes, int]:
        """Return a code of each row for its values in several columns, -1 if one is missing, and how many there are."""
        if not names:
            return np.zeros(len(self._dataset), np.int8), 1
        codes, labels = self.one(names[0])
        n = len(labels)
        for name in names[1:]:
            others, labels = self.one(name)
            codes, n = joined_codes(codes, others, len(labels))
        return codes, n

    def known(self) -> KnownLabels:
        """Return what tells later whether the columns that were read are the same."""
        of_file = self._dataset.reader.is_of_file
        return KnownLabels(
            {name: "" if of_file else _digest(*read) for name, read in self._read.items()}, self._n_writes
        )


@dataclass(frozen=True)
class KnownLabels:
    """The labels of obs columns of which an order was made.

    Parameters
    ----------
    digests
        Of each column in memory.
    n_writes
        How often annfeed had written to files.
    """

    digests: Mapping[str, str]
    n_writes: int = 0

    def check(self, dataset: Rows) -> None:
        """Raise StaleDataError if a column has other labels now; of files, if annfeed replaced it.

        Examples
        --------
        >>> import anndata, pandas as pd
        >>> from annfeed import AnnDataset
        >>> obs = pd.DataFrame({"drug": ["a", "b"]}, index=["1", "2"])
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(2, dtype="float32"), obs=obs))
        >>> columns = Columns(dataset)
        >>> codes, labels = columns.one("drug")
        >>> columns.known().check(dataset)
        """
        reader = dataset.reader
        for name, digest in self.digests.items():
            if reader.is_of_file:
                same = self.n_writes == n_own_writes() or not reader.obs.source.is_replaced(name, self.n_writes)
            else:
                same = name in reader.obs.source.column_names and _digest(*reader.label_codes(name)) == digest
            if not same:
                raise StaleDataError(
                    f"{in_a_line(dataset)}: obs[{name!r}] has other values than when the loader was made, whose order "
                    "is made of them; expected the same values. Make the loader again"
                )

    def __reduce__(self) -> tuple[Any, ...]:
        return KnownLabels, ({},)  # another process has a copy, which nobody edits


def _digest(codes: Codes, labels: list[Any]) -> str:
    return digest_of(np.array([digest_of(codes), *map(repr, labels)]))
