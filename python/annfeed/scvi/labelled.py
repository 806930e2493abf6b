"""Pairs of batches, of all cells and of labelled cells, for training SCANVI with a data module.

As with scvi-tools' own loaders, the longer of the two loaders makes the epoch, and the shorter one begins again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch.utilities import CombinedLoader


class NoCells:
    """Yields None in place of ``n`` batches of labelled cells, for data without labels.

    Examples
    --------
    >>> list(NoCells(2))
    [None, None]
    """

    def __init__(self, n: int) -> None:
        self._n = n

    def __iter__(self) -> Iterator[None]:
        return iter([None] * self._n)

    def __len__(self) -> int:
        return self._n


def with_labelled(cells: Any, labelled: Any | None) -> CombinedLoader:
    """Return a loader of pairs: a batch of all cells, and one of labelled cells (or None).

    Parameters
    ----------
    cells, labelled
        Loaders with a length; ``labelled`` is None if no cell has a label.

    Examples
    --------
    >>> from torch.utils.data import DataLoader
    >>> cells, labelled = (DataLoader(list(batches), batch_size=None) for batches in ("abc", "b"))
    >>> [pair for pair, _, _ in with_labelled(cells, labelled)], [pair for pair, _, _ in with_labelled(labelled, None)]
    ([['a', 'b'], ['b', 'b'], ['c', 'b']], [['b', None]])
    """
    return CombinedLoader([cells, NoCells(len(cells)) if labelled is None else labelled], "max_size_cycle")


def learns_labels(trainer: Any) -> bool:
    """Whether a Lightning trainer (or None) is training a model of scvi-tools that takes such pairs.

    Examples
    --------
    >>> learns_labels(None)
    False
    """
    if trainer is None or trainer.state.stage is None:
        return False
    from scvi.train import SemiSupervisedTrainingPlan

    return isinstance(trainer.lightning_module, SemiSupervisedTrainingPlan)
