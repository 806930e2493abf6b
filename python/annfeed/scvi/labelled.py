"""Batches of all cells next to batches of labelled ones, for a model that learns labels from a data module.

As scvi-tools' own loaders do for SCANVI: the longer of the two makes the epoch, the shorter one begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch.utilities import CombinedLoader


class NoCells:
    """Gives None in place of each of ``n`` batches: there are no labelled cells among these.

    Examples
    --------
    >>> list(NoCells(2))
    [None, None]
    """

    def __init__(self, n: int) -> None:
        self._n = n

    def __iter__(self) -> Iterator[None]:
        """Give the epoch."""
        return iter([None] * self._n)

    def __len__(self) -> int:
        """Return the number of batches."""
        return self._n


def with_labelled(cells: Any, labelled: Any | None) -> CombinedLoader:
    """Return a loader of pairs: a batch of all cells, and one of labelled cells (None where there are none).

    Parameters
    ----------
    cells, labelled
        Loaders with a length; ``labelled`` is None where no cell has a label.

    Examples
    --------
    >>> from torch.utils.data import DataLoader
    >>> cells, labelled = (DataLoader(list(batches), batch_size=None) for batches in ("abc", "b"))
    >>> [pair for pair, _, _ in with_labelled(cells, labelled)], [pair for pair, _, _ in with_labelled(labelled, None)]
    ([['a', 'b'], ['b', 'b'], ['c', 'b']], [['b', None]])
    """
    return CombinedLoader([cells, NoCells(len(cells)) if labelled is None else labelled], "max_size_cycle")


def learns_labels(trainer: Any) -> bool:
    """Whether a trainer is at work on a model of scvi-tools that takes such pairs.

    Parameters
    ----------
    trainer
        Of Lightning; None for none.

    Examples
    --------
    >>> learns_labels(None)
    False
    """
    if trainer is None or trainer.state.stage is None:
        return False
    from scvi.train import SemiSupervisedTrainingPlan

    return isinstance(trainer.lightning_module, SemiSupervisedTrainingPlan)
