"""`AnnotatedRows`: shape, obs and var of an open dataset.

Items, subsets and splits are in dataset/rows.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

import torch
from torch.utils.data import Dataset

from annfeed.batches.items import Item
from annfeed.batches.reader import RowReader
from annfeed.process.spawning import ThroughFile
from annfeed.sources.concat import ConcatSource

if TYPE_CHECKING:
    import pandas as pd


T = TypeVar("T")


class ReaderAttribute(Generic[T]):
    """An attribute of a dataset that is its reader's: it is read from there, and set there."""

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, dataset: None, _: type) -> Self: ...
    @overload
    def __get__(self, dataset: AnnotatedRows, _: type) -> T: ...
    def __get__(self, dataset: AnnotatedRows | None, _: type) -> Any:
        return self if dataset is None else getattr(dataset.reader, self._name)

    def __set__(self, dataset: AnnotatedRows, value: T) -> None:
        setattr(dataset.reader, self._name, value)


class AnnotatedRows(ThroughFile, Dataset[Item]):
    """The rows of a `RowReader`, with their obs and var."""

    #: Reads rows and makes batches: what loaders ask.
    reader: RowReader

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except AttributeError as error:
            if not isinstance(getattr(type(self), name, None), property):
                raise
            raise AttributeError(
                f"{type(self).__name__}.{name} says what the data have, and cannot be set. Give an attribute of your "
                f"own another name, or define {name} as a property of your class"
            ) from error

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and of columns delivered (of the first matrix, if there are several)."""
        return len(self), self.reader.first.n_vars

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return len(self)

    @property
    def n_vars(self) -> int:
        """Number of columns delivered (of the first matrix, if there are several)."""
        return self.reader.first.n_vars

    @property
    def obs(self) -> pd.DataFrame:
        """The columns of ``obs_columns`` at the dataset's rows, a new DataFrame at each access; its index is obs names.

        Examples
        --------
        >>> import anndata, numpy as np, pandas as pd
        >>> from annfeed import AnnDataset
        >>> obs = pd.DataFrame({"n": [1, 2, 3]}, index=["a", "b", "c"])
        >>> AnnDataset(anndata.AnnData(np.eye(3, dtype="float32"), obs=obs), obs_subset=[2, 0]).obs
           n
        c  3
        a  1
        """
        frame = self.reader.checked_obs.frame()
        return frame if self.reader.rows is None else frame.iloc[self.reader.rows]

    def obs_column(self, name: str) -> pd.Series[Any]:
        """Return one obs column of the dataset's rows, whether or not it is among ``obs_columns``.

        Its index is the position in the dataset; obs names are not read.

        Parameters
        ----------
        name
            Name of the column.

        Raises
        ------
        KeyError
            If there is no such column.

        Examples
        --------
        >>> import anndata, numpy as np, pandas as pd
        >>> from annfeed import AnnDataset
        >>> obs = pd.DataFrame({"donor": ["d1", "d2", "d1"]}, index=["a", "b", "c"])
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(3, dtype="float32"), obs=obs), obs_subset=[2, 1])
        >>> dataset.obs_column("donor").tolist()
        ['d1', 'd2']
        """
        column = self.reader.checked_obs.column(name)
        return column if self.reader.rows is None else column.iloc[self.reader.rows].reset_index(drop=True)

    @property
    def obs_names(self) -> pd.Index[str]:
        """The names of the dataset's rows, ``[n_obs]``."""
        names = self.reader.checked_obs.names
        return names if self.reader.rows is None else names[self.reader.rows]

    @property
    def var(self) -> pd.DataFrame:
        """The var of the delivered genes, a new DataFrame at each access; its index is `var_names`.

        Files are read at each access, one after the other: of many files keep what it returns. Of several sources it
        has the columns that all have, and in which they agree. Of several matrices it is that of the first. A matrix
        that is not over genes (in obsm) has no columns of var.

        Examples
        --------
        >>> import anndata, numpy as np, pandas as pd
        >>> from annfeed import AnnDataset
        >>> var = pd.DataFrame({"feature_name": ["CD3E", "MS4A1"]}, index=["ENSG00000198851", "ENSG00000156738"])
        >>> AnnDataset(anndata.AnnData(np.eye(2, dtype="float32"), var=var), var_subset=[1]).var
                        feature_name
        ENSG00000156738        MS4A1
        """
        self.reader.look_again(thorough=False)
        matrix = self.reader.first
        if matrix.var is not None:
            return matrix.var.frame()
        import pandas as pd

        return pd.DataFrame(index=matrix.names())

    @property
    def var_names(self) -> pd.Index[str]:
        """The names of the delivered columns, ``[n_vars]`` (of the first matrix, if there are several)."""
        return self.reader.first.names()

    @property
    def var_mask(self) -> torch.Tensor:
        """Which source has which gene, bool ``[n_sources, n_vars]``; a gene that a source lacks is delivered as 0.

        With ``label=`` and ``categories="code"``, the mask of a batch is ``dataset.var_mask[batch["obs_<label>"]]``.

        Examples
        --------
        >>> import anndata, numpy as np, pandas as pd
        >>> from annfeed import AnnDataset
        >>> a, b = (anndata.AnnData(np.eye(2), var=pd.DataFrame(index=genes)) for genes in (["A", "B"], ["C", "B"]))
        >>> AnnDataset([a, b], join="outer").var_mask
        tensor([[ True,  True, False],
                [False,  True,  True]])
        """
        source = self.reader.first.source
        if isinstance(source, ConcatSource):
            return torch.from_numpy(source.var_mask())
        return torch.ones((1, self.reader.first.n_vars), dtype=torch.bool, device="cpu")

    @property
    def categories(self) -> dict[str, pd.Index[Any]]:
        """The labels of the codes of each text or categorical column, with ``categories="code"``; code 0 is the first.

        Examples
        --------
        >>> import anndata, numpy as np, pandas as pd
        >>> from annfeed import AnnDataset
        >>> obs = pd.DataFrame({"sex": ["m", "f"]}, index=["a", "b"])
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(2, dtype="float32"), obs=obs), categories="code")
        >>> dataset.categories["sex"].tolist(), dataset[0]["obs_sex"].item()
        (['f', 'm'], 1)
        """
        return self.reader.checked_obs.categories
