"""`AnnDataModule`: a Lightning data module around `AnnDataset.split` and annfeed's loaders."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from annfeed.dataset import AnnDataset
from annfeed.loading.cell_sets import CellSets
from annfeed.loading.description import in_a_line
from annfeed.loading.keywords import TorchKeywords
from annfeed.loading.loader import WindowLoader

if TYPE_CHECKING:
    import lightning.pytorch as pl
else:

    def _lightning() -> Any:
        # The two packages have different classes: use the one that the user has imported.
        names = ["lightning.pytorch", "pytorch_lightning"]
        names.sort(key=lambda name: name not in sys.modules)
        for name in names:
            if importlib.util.find_spec(name.partition(".")[0]) is not None:
                return importlib.import_module(name)
        raise ImportError("annfeed.lightning needs Lightning, which is not installed: pip install 'annfeed[lightning]'")

    pl = _lightning()

#: The parts that Lightning knows of.
PARTS = ("train", "val", "test", "predict")


class PartsKeywords(TorchKeywords, total=False):
    """What the loaders of all parts take, for type checkers."""

    num_workers: int
    prefetch_batches: int | None


class AnnDataModule(pl.LightningDataModule):  # type: ignore[misc, unused-ignore]  # Any without lightning
    """A Lightning data module over the parts of a dataset.

    Training rows have a new order in each epoch; validation and test rows keep the dataset's order; prediction delivers
    each row once, with its ``"index"``. Under DDP each rank gets its share. Resuming from a checkpoint in the middle of
    an epoch continues that epoch; a checkpoint of another split is refused.

    Parameters
    ----------
    data
        An `AnnDataset`, or the first argument for one: a path, an AnnData, or several of them.
    splits
        Dict of the parts "train", "val", "test" and "predict": fractions of the rows that sum to 1, drawn by
        `AnnDataset.split`; or positions or masks of rows of the dataset. Without "predict", all rows are predicted.
    group_by, stratify, split_seed
        With fractions: ``group_by``, ``stratify`` and ``seed`` of `AnnDataset.split`.
    batch_size
        Rows of a batch, on each rank.
    block_size, seed, drop_last
        Options of the training loader, as in `AnnDataset.get_optimized_dataloader`.
    sets
        An `annfeed.CellSets`, for training, validation and test: ``batch_size`` then counts sets, but not in
        prediction, which delivers single rows. Each of these parts needs controls of its own. Validation and test sets
        are the same in each epoch.
    dataset_options
        Keywords of `AnnDataset`, if ``data`` is not a dataset.
    **loader_options
        Any other keyword of `AnnDataset.get_optimized_dataloader`, for all loaders: ``num_workers``,
        ``prefetch_batches``, ``pin_memory``, ….

    Attributes
    ----------
    dataset
        The `AnnDataset` of all rows.
    parts
        The `AnnDataset` of each part; each can be given its own ``transform``.

    Raises
    ------
    ValueError
        If a part is unknown, "train" is missing, or a row is in two of "train", "val" and "test".
    TypeError
        If a keyword is unknown, or ``dataset_options`` are given with a dataset.
    IndexError
        If a position is out of range.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> adata = anndata.AnnData(np.eye(10, dtype="float32"))
    >>> data = AnnDataModule(adata, splits={"train": 0.6, "val": 0.4}, batch_size=2)
    >>> {name: len(part) for name, part in data.parts.items()}, len(data.train_dataloader())
    ({'train': 6, 'val': 4}, 3)
    """

    def __init__(
        self,
        data: Any,
        *,
        splits: Mapping[str, Any],
        group_by: str | None = None,
        stratify: str | None = None,
        split_seed: int = 0,
        batch_size: int = 32,
        block_size: int | Literal["auto"] = 1,
        seed: int | None = None,
        drop_last: bool = False,
        sets: CellSets | None = None,
        dataset_options: Mapping[str, Any] | None = None,
        **loader_options: Unpack[PartsKeywords],
    ) -> None:
        super().__init__()
        if isinstance(data, AnnDataset) and dataset_options:
            raise TypeError(f"dataset_options {sorted(dataset_options)} are given with a dataset, which has its own")
        self.dataset = data if isinstance(data, AnnDataset) else AnnDataset(data, **(dataset_options or {}))
        unknown = [name for name in splits if name not in PARTS]
        if unknown or "train" not in splits:
            raise ValueError(f"splits has the parts {list(splits)}; expected 'train' and any of {PARTS[1:]}")
        if all(isinstance(part, int | float) for part in splits.values()):
            options: dict[str, Any] = {"group_by": group_by, "stratify": stratify, "seed": split_seed}
            self.parts = self.dataset.split(splits, **options)
        elif group_by is not None or stratify is not None:
            raise ValueError("group_by and stratify are for fractions, and splits has the rows of each part")
        else:
            self.parts = {name: self.dataset.subset(rows) for name, rows in splits.items()}
            _check_apart(self.parts)
        self.batch_size = batch_size
        self.sets = sets
        self._training: dict[str, Any] = {"block_size": block_size, "seed": seed, "drop_last": drop_last}
        self._loader_options: dict[str, Any] = {**loader_options}
        self.train_dataloader()  # raises now if a keyword is wrong

    def train_dataloader(self) -> WindowLoader:
        """Return the loader of the training rows, shuffled."""
        return self._loader("train", shuffle=True, **self._training)

    def val_dataloader(self) -> Any:
        """Return the loader of the validation rows, in the dataset's order; ``[]`` without that part."""
        return self._loader("val", shuffle=False) if "val" in self.parts else []

    def test_dataloader(self) -> Any:
        """Return the loader of the test rows, in the dataset's order; ``[]`` without that part."""
        return self._loader("test", shuffle=False) if "test" in self.parts else []

    def predict_dataloader(self) -> WindowLoader:
        """Return the loader of the rows to predict, each once, in the dataset's order, with ``"index"``."""
        part = self.parts.get("predict", self.dataset)
        return part.predict_loader(self.batch_size, **self._loader_options)

    def state_dict(self) -> dict[str, Any]:
        """Return fingerprints of the parts, for Lightning's checkpoints."""
        return {name: part.reader.fingerprint() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the parts with those of a checkpoint.

        Raises
        ------
        ValueError
            If a part has other rows or other data: validation or test rows may have been trained on.
        """
        here = self.state_dict()
        other = [name for name in {**here, **state_dict} if here.get(name) != state_dict.get(name)]
        if other:
            raise ValueError(
                f"{in_a_line(self.dataset)}: the parts {other} are not those of the checkpoint, so that rows to "
                "validate or test may have been trained on. Make the data module with the data, splits and split_seed "
                "of then"
            )

    def _loader(self, part: str, **options: Any) -> WindowLoader:
        return self.parts[part].get_optimized_dataloader(
            self.batch_size, sets=self.sets, **options, **self._loader_options
        )


def _check_apart(parts: Mapping[str, AnnDataset]) -> None:
    seen: dict[str, Any] = {}
    for name in ("train", "val", "test"):
        if name not in parts:
            continue
        part = parts[name]
        rows = part.rows_at(np.arange(len(part)))
        for other, others in seen.items():
            common = np.intersect1d(rows, others)
            if len(common):
                raise ValueError(
                    f"splits: {len(common)} rows are both in {other!r} and in {name!r}, the first is row {common[0]}; "
                    "give each row to one part"
                )
        seen[name] = rows
