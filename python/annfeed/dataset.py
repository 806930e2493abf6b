"""`AnnDataset`: a torch Dataset over the rows of an .h5ad file or an AnnData.

It opens the data, looks things up and makes loaders. Rows become batches in batches/reader.py.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from annfeed.arrays import Int64Array
from annfeed.batches.items import Collate, Item, Items, split
from annfeed.batches.keys import check_keys
from annfeed.batches.reader import RowReader
from annfeed.batches.tensors import dtype_name
from annfeed.inputs.selection import as_positions, row_subset
from annfeed.inspection import Inspection, ManyInspections, inspect_file, inspect_files
from annfeed.loading.loader import WindowLoader
from annfeed.memory.budget import cache_budget
from annfeed.order.blocks import log
from annfeed.order.shards import Uneven
from annfeed.order.splits import split_rows
from annfeed.process.spawning import ThroughFile
from annfeed.process.threads import reading_threads
from annfeed.sources.base import STATS
from annfeed.sources.concat import JoinedSource
from annfeed.sources.file import FileSource
from annfeed.sources.frame import FrameFileSource
from annfeed.transforms.base import Transform, check_transform, needs_totals, steps_of
from annfeed.user_arrays import positive_int

if TYPE_CHECKING:
    import pandas as pd

    from annfeed.inputs.paths import AnnDataOrPath


T = TypeVar("T")


class _OfReader(Generic[T]):
    """An attribute that the dataset's reader has."""

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, dataset: None, _: type) -> Self: ...
    @overload
    def __get__(self, dataset: AnnDataset, _: type) -> T: ...
    def __get__(self, dataset: AnnDataset | None, _: type) -> Any:
        return self if dataset is None else getattr(dataset.reader, self._name)

    def __set__(self, dataset: AnnDataset, value: T) -> None:
        setattr(dataset.reader, self._name, value)


class AnnDataset(ThroughFile, Dataset[Item]):
    """A torch Dataset over the cells of an .h5ad file, an AnnData, or several of them as one.

    The matrix of a file stays on disk; rows are decoded when they are read. (A CSC matrix is converted in memory at the
    first read.)

    Parameters
    ----------
    adata_or_path
        Path of an .h5ad file, or an AnnData (in memory, backed, or a view). For several sources, whose rows follow each
        other: a list of these, a dict ``{key: path or AnnData}``, or a pattern like ``"atlas/*.h5ad"`` (sorted by
        name); genes are matched by name. Each epoch delivers what an AnnData holds when the epoch begins; its cells and
        genes must then be the same as now. X and raw of a backed AnnData are read from its file, the rest from memory.
    transform
        An `annfeed.Transform`, called with each item, or with each batch if its ``batched`` is True.
    obs_subset
        Rows of the dataset: integer positions (order and repeats are kept), a slice, or a boolean mask; None for all.
        A mask that is a pandas Series is aligned by its index, which must be the obs names or the default index.
    chunk_size
        Rows that the optimized loader reads together: the window. More rows read faster and take more memory.
    elem
        Place of the matrix: "X", "raw/X", "layers/counts", "obsm/X_pca"; or ``{key: place}`` for several, each
        delivered under its key.
    obs_columns
        Obs columns to deliver; None for all, ``[]`` for none.
    var_subset
        Genes to deliver, in this order: names, integer positions, a slice, or a boolean mask (a Series is aligned by
        its index); None for all. It applies to the matrices over genes, or, if there is none, to those in obsm.
        ``{key: subset}`` selects for each matrix. `NormalizeTotal` still sums over all genes of the matrix.
    categories
        "str": text and categorical columns as text. "code": as int64 codes, -1 for missing values; the attribute
        `categories` lists their labels.
    output
        "dense": strided tensors ``[B, n_vars]``. "csr": torch sparse CSR tensors with sorted, distinct columns.
    dtype
        Of the matrix: torch.float16, bfloat16, float32, float64, uint8, int8, int16, int32 or int64. The first whole
        number that a float dtype rounds, and the first number that it makes infinite, give a warning each. A value that
        an integer dtype cannot hold is a ValueError.
    cache
        Bytes of decoded rows to keep in memory: a number, a text like "4GiB", 0 for none, or "auto" for half of the
        free memory, shared by all datasets of the process and its workers.
    threads
        Threads for reading. None: the cores available to the process (affinity, CPU quota of the container), divided by
        the number of ranks on the machine; 1 in a torch worker.
    strict
        Raise UnsupportedError where h5py would have to read the file, instead of a warning.
    return_index
        Add ``"index"`` to items and batches: int64, the row in the file or AnnData (see `rows_at`). It is not the
        position in this dataset: with ``obs_subset=[5, 2]``, item 0 has index 5.
    join
        For several sources. "inner": genes and obs columns that all sources have. "outer": those that any source has; a
        gene that a source lacks is 0 (see `var_mask`), an obs column that it lacks is missing.
    label
        Name of a categorical obs column to add, which holds the key of each row's source.
    keys
        Texts, one for each source, for ``label`` and ``index_unique``; None for "0", "1", ….
    index_unique
        Text to put between an obs name and the key of its source; None leaves the obs names unchanged.
    max_open_files
        Most files of several sources that are open in this process at a time; datasets share the smallest limit. To
        open another file, the one read longest ago is closed and its cached rows are dropped. None: half of
        ``ulimit -n``.

    Raises
    ------
    TypeError
        If ``transform`` is not a Transform, or an argument has the wrong type.
    ValueError
        If a number is below 1, an option is unknown, a mask has the wrong length or index, a key of ``elem`` is
        reserved or an obs column's, or sources have different genes and one of them repeats a gene name.
    IndexError
        If a position of ``obs_subset`` or ``var_subset`` is out of range.
    KeyError
        If an ``elem``, obs column or gene does not exist; the message suggests similar names.
    OSError
        If the file cannot be read; later, `StaleFileError` if it has changed.
    StaleDataError
        Later, if an AnnData has other cells or genes than now.
    FormatError
        If the file is damaged or not an .h5ad file; `UnsupportedError` if annfeed recognises its format.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, tempfile
    >>> obs = pd.DataFrame({"n": [1, 2, 3]}, index=["a", "b", "c"])
    >>> adata = anndata.AnnData(np.eye(3, dtype="float32"), obs=obs)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     adata.write_h5ad(f"{folder}/three.h5ad")
    ...     dataset = AnnDataset(f"{folder}/three.h5ad", obs_subset=[2, 0])
    ...     dataset.shape, dataset[0]
    ((2, 3), {'X': tensor([0., 0., 1.]), 'obs_n': tensor(3)})
    """

    def __init__(
        self,
        adata_or_path: AnnDataOrPath | Iterable[AnnDataOrPath] | Mapping[str, AnnDataOrPath],
        *,
        transform: Transform | None = None,
        obs_subset: npt.ArrayLike | slice | None = None,
        chunk_size: int = 6000,
        elem: str | Mapping[str, str] = "X",
        obs_columns: Sequence[str] | None = None,
        var_subset: Sequence[str] | npt.ArrayLike | Mapping[str, Any] | slice | None = None,
        categories: Literal["str", "code"] = "str",
        output: Literal["dense", "csr"] = "dense",
        dtype: torch.dtype = torch.float32,
        cache: str | int = "auto",
        threads: int | None = None,
        strict: bool = False,
        return_index: bool = False,
        join: Literal["inner", "outer"] = "inner",
        label: str | None = None,
        keys: Iterable[str] | None = None,
        index_unique: str | None = None,
        max_open_files: int | None = None,
    ) -> None:
        # It brings anndata, pandas and h5py with it: seconds that `import annfeed` should not take.
        from annfeed.inputs.many import Joining, open_sources

        check_transform(transform)
        self.chunk_size = positive_int("chunk_size", chunk_size)
        self.cache = cache
        cache_budget(cache)
        dtype_name(dtype)
        self.elem = elem
        options: dict[str, Any] = {
            "transform": transform,
            "output": _one_of("output", output, ("dense", "csr")),
            "dtype": dtype,
            "threads": None if threads is None else positive_int("threads", threads),
            "categories": _one_of("categories", categories, ("str", "code")),
            "return_index": return_index,
        }
        opened = open_sources(
            adata_or_path,
            elem,
            obs_columns,
            var_subset,
            Joining(join=join, label=label, keys=keys, index_unique=index_unique, max_open_files=max_open_files),
            cache=cache,
            threads=reading_threads(options["threads"]),
            strict=strict,
            totals=any(map(needs_totals, steps_of(transform))),
        )
        self._origin = opened.origin
        check_keys(opened.matrices, {f"obs_{column}" for column in opened.obs.columns})
        #: Range of the rows of each source, before ``obs_subset``; ``"index"`` counts the same way.
        self.source_rows = opened.rows
        rows = row_subset(obs_subset, opened.obs.n_rows, lambda: opened.obs.names)
        #: Reads rows and makes batches, for the loaders.
        self.reader = self._reader_type(opened.matrices, opened.obs, opened.places, rows, **options)
        if log.isEnabledFor(logging.INFO) and isinstance(self.reader.first.source, FileSource):
            log.info("%s", self.inspect())

    _reader_type = RowReader
    transform = _OfReader["Transform | None"]()
    output = _OfReader[str]()
    dtype = _OfReader[torch.dtype]()
    threads = _OfReader["int | None"]()
    return_index = _OfReader[bool]()
    #: Path of each source, or a description of an AnnData.
    sources = _OfReader["list[str]"]()

    def __len__(self) -> int:
        """Return the number of rows of the dataset."""
        return len(self.reader)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and of columns delivered (of the first matrix, if there are several)."""
        return len(self), self.reader.first.n_vars

    def rows_at(self, positions: Int64Array) -> Int64Array:
        """Return the rows of the file or AnnData at ``positions`` (int64 ``[n]``), as ``"index"`` has them.

        For a view of a backed AnnData these are rows of its file. For several sources they are rows of all sources one
        after the other; `source_rows` has the range of each.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> AnnDataset(anndata.AnnData(np.eye(6, dtype="float32")), obs_subset=[5, 2]).rows_at(np.array([1]))
        array([2])
        """
        return self.reader.rows_at(positions)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | npt.NDArray[Any]) -> Items: ...
    def __getitem__(self, index: Any) -> Item | Items:
        """Return one item, or several items that are read together.

        Parameters
        ----------
        index
            A position in the dataset; negative ones count from the end. For several items: positions (order and repeats
            are kept), a slice, or a mask of the dataset's length (a Series is aligned by its index, the obs names).

        Raises
        ------
        IndexError
            If a position is out of range.
        TypeError
            If ``index`` is neither an integer, nor a sequence of integers, nor a mask.
        ValueError
            If a mask has the wrong length or index.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(3, dtype="float32")))
        >>> dataset[-1], [item["X"].argmax().item() for item in dataset[[2, 0]]], len(dataset[:2])
        ({'X': tensor([0., 0., 1.])}, [2, 0], 2)
        """
        is_several = hasattr(index, "__iter__") and not isinstance(index, str | bytes) and getattr(index, "ndim", 1) > 0
        if is_several or isinstance(index, slice):
            return self.__getitems__(index)
        return split(self.reader.batch(as_positions([index], len(self))))[0]

    def __getitems__(self, indices: slice | Sequence[int] | npt.NDArray[Any]) -> Items:
        """Return the items at ``indices``, read together. A plain torch DataLoader calls it."""
        positions = row_subset(
            indices,
            len(self),
            lambda: self.obs_names,
            what="the index",
            from_end=True,
            named="dataset.obs_names",
        )
        assert positions is not None
        return Items(self.reader.batch(positions))

    def get_collate_fn(self) -> Collate:
        """Return the collate function for a plain torch DataLoader; it passes batches on without stacking items again.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(3, dtype="float32")))
        >>> loader = torch.utils.data.DataLoader(dataset, batch_size=2, collate_fn=dataset.get_collate_fn())
        >>> next(iter(loader))
        {'X': tensor([[1., 0., 0.],
            [0., 1., 0.]])}
        """
        return Collate()

    def get_optimized_dataloader(
        self,
        batch_size: int = 32,
        *,
        shuffle: bool = True,
        num_workers: int = 0,
        block_size: int | Literal["auto"] = 1,
        seed: int | None = None,
        drop_last: bool = False,
        prefetch_batches: int | None = None,
        return_index: bool | None = None,
        weights: npt.ArrayLike | None = None,
        balance: str | None = None,
        temperature: float = 1.0,
        replacement: bool = True,
        n_samples: int | None = None,
        order: Callable[[int], Any] | None = None,
        uneven: Uneven = "pad",
        **kwargs: Any,
    ) -> WindowLoader:
        """Return the loader that reads windows of ``chunk_size`` rows and cuts batches from them.

        Parameters
        ----------
        batch_size
            Rows of a batch.
        shuffle
            True: a new order in each epoch. False: the order of the dataset. Ignored with ``sampler=`` and
            ``batch_sampler=``.
        num_workers
            torch worker processes. 0 reads ahead in threads, which is faster unless transforms are slow.
        block_size
            1: a uniform pseudo-random order. k: runs of k neighbouring rows are shuffled over the whole dataset, then
            the rows of each window among themselves. "auto": runs are cut at the chunk borders of the file.
        seed
            The same seed gives the same batches, on any machine, with any number of threads and workers. None draws a
            seed from ``generator=``, else from torch's global generator, at the first batch of each epoch.
        drop_last
            Leave out a last batch that is not full.
        prefetch_batches
            Most batches that are made ahead, with ``num_workers=0``. None: 4, or 2 if a batch takes 8 MiB or more.
        return_index
            Add ``"index"`` to batches: int64 ``[B]``, the rows in the file or AnnData. None: as the dataset does.
        weights
            Real numbers >= 0, ``[n_rows]``: each epoch draws rows in proportion to them. The expected count of a row is
            ``n_samples * weight / sum(weights)``; it is drawn that often, rounded up or down at random, and its copies
            are spread over the epoch. A pandas Series is aligned by its index: `obs_names` in any order, or the default
            index.
        balance
            Obs column whose values get equal shares of each epoch.
        temperature
            With ``balance``: a value of n rows gets a share in proportion to ``n ** (1 - temperature)``. 1 gives equal
            shares, 0 those of the data.
        replacement
            With ``weights`` or ``balance``: whether a row may be drawn more than once in an epoch.
        n_samples
            With ``weights`` or ``balance``: rows drawn in an epoch. None: ``n_rows``; without replacement, the most
            that keep the shares exact (for ``balance`` all rows of the rarest value, and about as many of the others).
        order
            Function of the epoch's number that returns the positions of that epoch (integers; any order, number and
            repeats). It must return the same on every rank; ranks share the positions.
        uneven
            With several ranks, if some would have one batch less: "pad" repeats a row of another rank on these, "drop"
            leaves out a row on the others, "keep" lets ranks differ by one batch (not for DDP). With several ranks
            every batch has ``"is_padding"``, bool ``[B]``, True for repeated rows.
        **kwargs
            Any other keyword of ``torch.utils.data.DataLoader``.

        Raises
        ------
        TypeError
            If a keyword is unknown, or a number is not an integer.
        ValueError
            If a value is out of range, or options exclude each other.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(3, dtype="float32")))
        >>> [batch["X"].shape[0] for batch in dataset.get_optimized_dataloader(batch_size=2, seed=0)]
        [2, 1]
        """
        return WindowLoader(
            self,
            batch_size=batch_size,
            shuffle=shuffle,
            num_workers=num_workers,
            block_size=block_size,
            seed=seed,
            drop_last=drop_last,
            prefetch_batches=prefetch_batches,
            return_index=return_index,
            weights=weights,
            balance=balance,
            temperature=temperature,
            replacement=replacement,
            n_samples=n_samples,
            order=order,
            uneven=uneven,
            **kwargs,
        )

    def predict_loader(self, batch_size: int = 32, **kwargs: Any) -> WindowLoader:
        """Return a loader that delivers each row once, in the dataset's order, with its ``"index"``.

        Each of several ranks delivers a contiguous share, rank 0 the first rows. Shares differ by at most one row, so a
        rank may have one batch more than another.

        Parameters
        ----------
        batch_size
            Rows of a batch; the last of each rank may be shorter.
        **kwargs
            Any other keyword of `get_optimized_dataloader` but ``shuffle``, ``drop_last`` and ``return_index``.

        Raises
        ------
        TypeError
            If a keyword is unknown or one of these three.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(5, dtype="float32")), obs_subset=[4, 0, 2])
        >>> [batch["index"].tolist() for batch in dataset.predict_loader(batch_size=2)]
        [[4, 0], [2]]
        """
        return WindowLoader(
            self, batch_size=batch_size, shuffle=False, drop_last=False, return_index=True, uneven="keep", **kwargs
        )

    @property
    def obs(self) -> pd.DataFrame:
        """The columns of ``obs_columns`` at the dataset's rows, a new DataFrame at each access; its index is obs names.

        Examples
        --------
        >>> import anndata, numpy as np, pandas as pd
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
        >>> obs = pd.DataFrame({"donor": ["d1", "d2", "d1"]}, index=["a", "b", "c"])
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(3, dtype="float32"), obs=obs), obs_subset=[2, 1])
        >>> dataset.obs_column("donor").tolist()
        ['d1', 'd2']
        """
        column = self.reader.checked_obs.column(name)
        return column if self.reader.rows is None else column.iloc[self.reader.rows].reset_index(drop=True)

    def split(
        self,
        fractions: Mapping[str, float],
        *,
        group_by: str | None = None,
        stratify: str | None = None,
        seed: int = 0,
    ) -> dict[str, AnnDataset]:
        """Return the parts of a random split, as datasets that share the open files and the cache.

        Rows keep their order within a part. Each part can be given another ``transform``; closing one closes the files
        of all.

        Parameters
        ----------
        fractions
            Fraction of the rows by name of the part: ``{"train": 0.8, "val": 0.1, "test": 0.1}``.
        group_by
            Obs column, for example the donor: all rows of one value are in one part. Fractions are then met as closely
            as whole groups allow.
        stratify
            Obs column, for example the cell type: each part gets its fraction of each value's rows, to within one row
            (with ``group_by``, as closely as whole groups allow). Missing values count as one value.
        seed
            The same seed gives the same parts on every machine.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If the fractions do not sum to 1, a part would be empty, ``group_by`` has a missing value, or the dataset
            has a row twice.

        Examples
        --------
        >>> import anndata, numpy as np, pandas as pd
        >>> obs = pd.DataFrame({"donor": list("aabbccdd")}, index=list("12345678"))
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(8, dtype="float32"), obs=obs))
        >>> parts = dataset.split({"train": 0.75, "test": 0.25}, group_by="donor")
        >>> {name: sorted(set(part.obs["donor"])) for name, part in parts.items()}
        {'train': ['a', 'b', 'c'], 'test': ['d']}
        """
        if self.reader.rows is not None and len(np.unique(self.reader.rows)) < len(self.reader.rows):
            raise ValueError(f"{self!r}: obs_subset repeats rows, which could come into two parts; split first")
        groups = None if group_by is None else self.reader.label_codes(group_by, needed_by="group_by")[0]
        strata = None if stratify is None else self.reader.label_codes(stratify)[0]
        parts = split_rows(len(self), fractions, groups=groups, strata=strata, seed=seed)
        return {name: self._view(positions) for name, positions in parts.items()}

    def subset(self, rows: npt.ArrayLike | slice) -> AnnDataset:
        """Return some rows as a dataset that shares the open files and the cache.

        Parameters
        ----------
        rows
            Positions in this dataset (order and repeats are kept), a slice, or a mask of its length. A mask that is a
            Series is aligned by its index, which must be `obs_names` or the default index.

        Raises
        ------
        TypeError
            If ``rows`` is none of these.
        ValueError
            If a mask has the wrong length or index.
        IndexError
            If a position is negative or out of range.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(4, dtype="float32")), obs_subset=[3, 1, 0])
        >>> dataset.subset([2, 0])[0]["X"]
        tensor([1., 0., 0., 0.])
        """
        chosen = row_subset(rows, len(self), lambda: self.obs_names, what="rows", named="dataset.obs_names")
        return self._view(np.arange(len(self)) if chosen is None else chosen)

    def _view(self, positions: Int64Array) -> AnnDataset:
        self.reader.obs.check_rows()
        view = copy.copy(self)
        view.reader = self.reader.part(positions)
        return view

    @property
    def obs_names(self) -> pd.Index[str]:
        """The names of the dataset's rows, ``[n_rows]``."""
        names = self.reader.checked_obs.names
        return names if self.reader.rows is None else names[self.reader.rows]

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
        >>> a, b = (anndata.AnnData(np.eye(2), var=pd.DataFrame(index=genes)) for genes in (["A", "B"], ["C", "B"]))
        >>> AnnDataset([a, b], join="outer").var_mask
        tensor([[ True,  True, False],
                [False,  True,  True]])
        """
        source = self.reader.first.source
        if isinstance(source, JoinedSource):
            return torch.from_numpy(source.var_mask())
        return torch.ones((1, self.reader.first.n_vars), dtype=torch.bool, device="cpu")

    @property
    def categories(self) -> dict[str, pd.Index[Any]]:
        """The labels of the codes of each text or categorical column, with ``categories="code"``; code 0 is the first.

        Examples
        --------
        >>> import anndata, numpy as np, pandas as pd
        >>> obs = pd.DataFrame({"sex": ["m", "f"]}, index=["a", "b"])
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(2, dtype="float32"), obs=obs), categories="code")
        >>> dataset.categories["sex"].tolist(), dataset[0]["obs_sex"].item()
        (['f', 'm'], 1)
        """
        return self.reader.checked_obs.categories

    def stats(self) -> dict[str, int]:
        """Return counts of what was read so far in this process.

        ``opens``: times a file was opened. ``bytes_read``, ``bytes_decoded``: bytes of chunks before and after
        decompression. ``cache_hits``, ``cache_misses``: rows. ``cache_bytes``: bytes that the cache of these matrices
        holds now.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> AnnDataset(anndata.AnnData(np.eye(3, dtype="float32"))).stats()["opens"]
        0
        """
        total = dict.fromkeys(STATS, 0)
        for matrix in self.reader.matrices.values():
            for name, count in matrix.source.stats().items():
                total[name] += count
        return total

    def inspect(self) -> Inspection | ManyInspections:
        """Return how the first matrix is stored, how much each order decodes, and which settings to use.

        For several files it is a `ManyInspections`, with one `Inspection` for each in ``files``.

        Raises
        ------
        ValueError
            If the matrix is in memory.
        UnsupportedError
            If it is a DataFrame in obsm.
        StaleFileError
            If the file is no longer the one that the dataset was made from.

        Examples
        --------
        >>> import anndata, numpy as np, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     anndata.AnnData(np.eye(3, dtype="float32")).write_h5ad(f"{folder}/three.h5ad")
        ...     AnnDataset(f"{folder}/three.h5ad").inspect().cost["exact random"]
        1.0
        """
        source = self.reader.first.source
        of_files = FileSource | FrameFileSource
        parts = [m.source for m in source.matrices] if isinstance(source, JoinedSource) else [source]
        found = [part for part in parts if isinstance(part, of_files)]
        if not found:
            raise ValueError(f"{source.place} is in memory; expected a file; there is nothing to inspect")
        for part in found:
            part.check_unchanged()
        if isinstance(source, JoinedSource):
            return inspect_files([(part.path, part.elem) for part in found], self.chunk_size)
        return inspect_file(found[0].path, found[0].elem, self.chunk_size)

    def close(self) -> None:
        """Close the files. A closed dataset cannot be read."""
        for matrix in self.reader.matrices.values():
            matrix.source.close()

    def __enter__(self) -> AnnDataset:
        """Return the dataset; leaving the ``with`` block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        """Return shape and place."""
        places = ", ".join(f"{key}={matrix.source.place}" for key, matrix in self.reader.matrices.items())
        return f"AnnDataset({len(self)} x {self.reader.first.n_vars}, {places})"


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; expected one of {allowed}")
    return value
