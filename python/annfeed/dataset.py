"""`AnnDataset`: a torch Dataset over the rows of an .h5ad file or an AnnData.

It is what users see: it opens, looks things up, and makes loaders; how rows become batches is in batches/reader.py.
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
    """A torch Dataset whose items are the cells of an .h5ad file, an AnnData, or many of them, in the order asked for.

    The file stays as it is, on disk: rows are decoded when they are asked for, a window of them at a time.

    Parameters
    ----------
    adata_or_path
        Path of an .h5ad file (best: nothing is loaded), or an AnnData in memory or backed, or a view of one. An epoch
        delivers what the object holds when the epoch begins; other cells or genes by then are an error. Of a backed
        AnnData X and raw are streamed from its file, all else is what the object has in memory. Several as one, their
        rows one after the other: a list of these, a dict ``{key: path or AnnData}``, or a pattern like
        ``"atlas/*.h5ad"`` (sorted by name). Genes are matched by name, obs columns united.
    transform
        An `annfeed.Transform`, applied to each item; one with ``batched = True`` to whole batches.
    obs_subset
        The rows that make up the dataset: integer positions (order and repeats kept), a slice, or a boolean mask; None
        for all. A mask that is a pandas Series goes by its index, which must be obs names or the default one.
    chunk_size
        Rows read together by the optimized loader: the window. It bounds memory, and it is what makes reading fast.
    elem
        Where the matrix lies: "X", "raw/X", "layers/counts", "obsm/X_pca"; or ``{key: place}`` for several, each
        delivered under its key, which no obs column may have.
    obs_columns
        The obs columns to deliver; None for all, ``[]`` for none.
    var_subset
        The genes to deliver, in this order: names, integer positions, or a boolean mask (a Series by its index); None
        for all. It concerns matrices over genes; or, where there is none, those in obsm: a DataFrame's columns have
        names there, an array's have none. ``{key: subset}`` for each matrix its own. A `NormalizeTotal` still sums over
        all genes of the matrix.
    categories
        "str": text and categorical columns are delivered as text. "code": as int64 codes, -1 where missing;
        `categories` lists what they stand for.
    output
        "dense": strided tensors ``[B, n_vars]``. "csr": torch sparse CSR tensors with sorted, distinct columns.
    dtype
        Of the matrix: torch.float16, bfloat16, float32, float64, uint8, int8, int16, int32 or int64. Whole numbers that
        a float cannot hold are rounded with one warning, and numbers too large for it become infinite with another;
        values that an integer cannot hold are an error.
    cache
        Bytes of decoded rows to keep in memory: a number, "4GiB", 0 for none, or "auto" for half of the free memory,
        which all datasets of the process and its workers share.
    threads
        Threads for reading; None for the cores that this process may use (affinity, CPU quota of the container),
        divided among the ranks of the machine, and for one in a torch worker.
    strict
        Raise instead of falling back to h5py for files that the Rust reader declines.
    return_index
        Add ``"index"`` to items and batches: int64, the row in the file or AnnData that `write_obsm` writes to (of a
        view of a backed AnnData: the row in its file; of several sources, also of such a view among them: the row among
        all of their rows, of which `source_rows` lists each one's). It is not the position in this dataset: with
        ``obs_subset=[5, 2]``, item 0 has index 5.
    join
        Of several sources: "inner" takes the genes and obs columns that all have. "outer" takes those of any: values
        are 0 where a file has no such gene (`var_mask` tells), and missing where it has no such column.
    label
        Name of an obs column to add, which tells the sources apart: a categorical whose codes count them.
    keys
        A text for each source, for ``label``; None for "0", "1", ….
    index_unique
        Put between the obs name of a row and its source's key; None leaves the names as they are.
    max_open_files
        Of several sources, so many files are open at one time in a process, those of all such datasets together (the
        smallest number holds); the one read longest ago is closed, and what ``cache`` kept of it goes. None for half of
        what the process may open (``ulimit -n``).

    Raises
    ------
    TypeError
        If ``transform`` is no Transform, or an argument has the wrong type.
    ValueError
        If ``chunk_size`` is below 1, a mask has the wrong length or the index of other rows, an option is unknown, a
        key of ``elem`` is taken, or one of several sources of different genes has two of one name.
    IndexError
        If ``obs_subset`` is negative or out of range.
    KeyError
        If there is no such ``elem``, obs column or gene; the message names near matches.
    OSError
        If the file cannot be read; `StaleFileError` if it changes later.
    StaleDataError
        Later, if an AnnData has other cells or genes than now.
    FormatError
        If the file is not what it says it is; `UnsupportedError` if it is of another format that is known.

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
        #: Rows of each source, before ``obs_subset``: what ``"index"`` says.
        self.source_rows = opened.rows
        rows = row_subset(obs_subset, opened.obs.n_rows, lambda: opened.obs.names)
        #: Reads rows and makes batches: what loaders ask.
        self.reader = self._reader_type(opened.matrices, opened.obs, opened.places, rows, **options)
        if log.isEnabledFor(logging.INFO) and isinstance(self.reader.first.source, FileSource):
            log.info("%s", self.inspect())

    _reader_type = RowReader
    transform = _OfReader["Transform | None"]()
    output = _OfReader[str]()
    dtype = _OfReader[torch.dtype]()
    threads = _OfReader["int | None"]()
    return_index = _OfReader[bool]()
    #: Path of each source, or the words for an AnnData.
    sources = _OfReader["list[str]"]()

    def __len__(self) -> int:
        """Return the number of rows of the dataset."""
        return len(self.reader)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns as delivered (of the first matrix, where there are several)."""
        return len(self), self.reader.first.n_vars

    def rows_at(self, positions: Int64Array) -> Int64Array:
        """Return the rows of the file or AnnData at ``positions``: what ``"index"`` is, and `write_obsm` writes to.

        Of a view of a backed AnnData these are the rows of its file, as the view itself can hold no results.
        """
        return self.reader.rows_at(positions)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | npt.NDArray[Any]) -> Items: ...
    def __getitem__(self, index: Any) -> Item | Items:
        """Return one item, or several, read together.

        Parameters
        ----------
        index
            Position in the dataset; negative ones count from the end. Several: positions (order and repeats kept), a
            slice, or a mask of the dataset's length. A mask that is a Series goes by its index, as obs names.

        Raises
        ------
        IndexError
            If it is out of range.
        TypeError
            If it is no integer, nor a sequence of them, nor a mask.
        ValueError
            If a mask has another length, or the index of other rows.

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
        """Return the items at ``indices``, read together: what a plain torch DataLoader asks for."""
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
        """Return the collate function that hands on batches as they were read, without stacking them again.

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
        """Return the loader that reads windows of ``chunk_size`` rows and delivers batches in the order asked for.

        Parameters
        ----------
        batch_size
            Rows of a batch.
        shuffle
            A new order each epoch, else the dataset's own. Superseded by ``sampler=`` and ``batch_sampler=``.
        num_workers
            torch worker processes. 0, with read-ahead in threads, is the fast way; workers are for heavy transforms.
        block_size
            1: a uniform pseudo-random order. k: runs of k neighbouring rows are shuffled over the whole dataset, then
            the rows of each window among themselves. "auto": runs cut at the file's chunk borders, so that no chunk is
            decoded twice.
        seed
            The same seed gives the same batches, on any machine, with any number of threads and workers. None draws one
            from ``generator=``, else from torch's global generator, at the first batch of each epoch.
        drop_last
            Leave out a last batch that is short.
        prefetch_batches
            Batches that are made ahead while the model works, with ``num_workers=0``. None: 4, or 2 where a batch takes
            8 MiB or more, because the fewer are in flight, the more of them stay in the processor's cache.
        return_index
            Add ``"index"`` to batches: int64 ``[B]``, the rows in the file or AnnData; None for as the dataset does.
        weights
            [n_rows], real numbers from 0 on: each epoch draws rows in proportion to them. A row comes as often as it is
            due (``n_samples * weight / sum``), rounded up or down by chance; its copies are spread over the epoch.
            A pandas Series goes by its index, which must be `obs_names`, in any order, or the default one.
        balance
            An obs column, as cell_type: each epoch draws rows so that its values have equal shares.
        temperature
            How far ``balance`` goes: the share of a value that n rows have is in proportion to n ** (1 - temperature),
            so 1 gives equal shares and 0 those of the data.
        replacement
            With ``weights`` or ``balance``: whether a row may come more than once in an epoch.
        n_samples
            Rows drawn in an epoch. None: as many as the dataset has; without replacement, as many as keep the shares
            exact, which for ``balance`` is all rows of the rarest value, and about as many of each other.
        order
            A function of the number of the epoch that returns its positions (integers, in any order, any number,
            repeats allowed), the same on every rank; ranks share them out.
        uneven
            With several ranks, where some would have a batch less than others: "pad" repeats a row of another rank
            there, "drop" leaves a row out on the others, "keep" lets them differ by one batch, which training with
            gradients in common cannot bear. Every batch of several ranks says in ``"is_padding"`` (bool ``[B]``) which
            of its rows are repeats, also where there are none.
        **kwargs
            Any other keyword of ``torch.utils.data.DataLoader``.

        Raises
        ------
        TypeError
            If a keyword is unknown.
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

        Nothing is shuffled, dropped or repeated. Of several ranks each delivers its own contiguous share, rank 0 the
        first rows; the shares differ by one row at most, so that a rank may have one batch more than another.

        Parameters
        ----------
        batch_size
            Rows of a batch; the last of each rank may be shorter.
        **kwargs
            Any other keyword of `get_optimized_dataloader` but ``shuffle``, ``drop_last`` and ``return_index``.

        Raises
        ------
        TypeError
            If a keyword is unknown, or one of these.

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
        """The columns of ``obs_columns`` at the dataset's rows, in their order, as a DataFrame of its own.

        Its index holds the obs names. It is read from the file, or taken from the AnnData, at each access; what is done
        to it stays in it.
        """
        frame = self.reader.checked_obs.frame()
        return frame if self.reader.rows is None else frame.iloc[self.reader.rows]

    def obs_column(self, name: str) -> pd.Series[Any]:
        """Return one obs column of the dataset's rows, whether or not it is among ``obs_columns``.

        Its index is the position in the dataset: the names of the cells, which take far more memory than a column of
        labels, are not read (`obs_names` has them).

        Parameters
        ----------
        name
            The column; only it is read.

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
        """Return the parts of a random split, as datasets on the same open files and the same cache.

        Each part keeps the dataset's order of rows. Parts can be given another ``transform`` each; closing one closes
        the files of all.

        Parameters
        ----------
        fractions
            Of the rows, by name of the part: ``{"train": 0.8, "val": 0.1, "test": 0.1}``.
        group_by
            An obs column, as a donor's; rows with one value are all in one part, so that fractions are met as closely
            as whole groups allow.
        stratify
            An obs column, as a cell type's; each part gets its fraction of each value's rows, to within one row, or as
            closely as whole groups allow. Rows where it is missing count as a value.
        seed
            The same seed gives the same parts on every machine.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If the fractions do not sum to 1, a part would be empty, a group is missing, or a row is in the dataset
            twice.

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
        """Return some rows as a dataset on the same open files and the same cache.

        Parameters
        ----------
        rows
            Positions in this dataset (order and repeats kept), a slice, or a mask of its length. A mask that is a
            Series goes by its index, which must be `obs_names` or the default one.

        Raises
        ------
        TypeError
            If they are neither.
        ValueError
            If a mask has another length.
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
        """The names of the dataset's rows."""
        names = self.reader.checked_obs.names
        return names if self.reader.rows is None else names[self.reader.rows]

    @property
    def var_names(self) -> pd.Index[str]:
        """The names of the delivered columns (of the first matrix, where there are several)."""
        return self.reader.first.names()

    @property
    def var_mask(self) -> torch.Tensor:
        """Which genes each source measured: torch.bool ``[sources, n_vars]``; elsewhere a 0 means "not measured".

        With ``label=`` and ``categories="code"`` the mask of a batch is ``dataset.var_mask[batch["obs_<label>"]]``.

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
        """What the codes of each text or categorical column stand for, with ``categories="code"``."""
        return self.reader.checked_obs.categories

    def stats(self) -> dict[str, int]:
        """Return what reading did so far in this process: files, bytes, and the cache.

        ``opens``: files opened. ``bytes_read``, ``bytes_decoded``: before and after the filters. ``cache_hits``,
        ``cache_misses``: rows. ``cache_bytes``: held now, by all datasets on these matrices.

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
        """Return what lies in the file (of the first matrix), what each order costs there, and what we would set.

        Of many files: `ManyInspections`, which has those of each as ``files``.

        Raises
        ------
        ValueError
            If the matrix is in memory.
        UnsupportedError
            If it is a DataFrame in obsm, whose columns are read whole.
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
        """Close the files; a closed dataset cannot be read any more."""
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
