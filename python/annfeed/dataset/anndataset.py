"""`AnnDataset`: a torch Dataset over the rows of a file or an AnnData: how it is opened, and its loaders."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy.typing as npt
import torch

from annfeed.arrays import integer
from annfeed.batches.keys import check_keys
from annfeed.batches.reader import RowReader
from annfeed.batches.tensors import check_output, dtype_name
from annfeed.batches.tokens import Tokens, names_genes
from annfeed.dataset.rows import RowDataset
from annfeed.h5ad.tenx import FeatureOptions
from annfeed.inputs.selection import row_subset
from annfeed.loading.cell_sets import CellSets
from annfeed.loading.keywords import PredictKeywords, TorchKeywords
from annfeed.loading.loader import WindowLoader
from annfeed.loading.sampler import PlanSampler
from annfeed.memory.budget import cache_budget
from annfeed.order.auto_blocks import log
from annfeed.order.shards import Uneven
from annfeed.process.threads import reading_threads, reads_in_flight
from annfeed.sources.file import FileSource
from annfeed.transforms.base import Transform, check_transform, needs_totals, steps_of

if TYPE_CHECKING:
    from annfeed.inputs.paths import AnnDataOrPath


class _Default(int):
    """A default, which is told apart from the same number where a user gives that."""


#: Rows of a window by default.
_WINDOW = _Default(6000)


class AnnDataset(RowDataset):
    """A torch Dataset over the cells of an .h5ad file, an AnnData, or several of them as one.

    The matrix of a file stays on disk; rows are decoded when they are read. (A CSC matrix is converted in memory at the
    first read.)

    Parameters
    ----------
    adata_or_path
        Path of an .h5ad or .h5mu file or of a Cell Ranger .h5 (10x Genomics), or an AnnData or MuData (in memory,
        backed, or a view). For several sources, whose rows follow each other: a list of these, a dict ``{key: path or
        AnnData}``, or a pattern like ``"atlas/*.h5ad"`` (sorted by name); genes are matched by name, those of Cell
        Ranger's files by id. Each epoch delivers what an AnnData holds when the epoch begins; its cells and genes must
        then be the same as now. X and raw of a backed AnnData are read from its file, the rest from memory.
    transform
        An `annfeed.Transform`, called with each item, or with each batch if its ``batched`` is True.
    obs_subset
        Rows of the dataset: integer positions (order and repeats are kept), a slice, or a boolean mask; None for all.
        With ``cells``, those of them that are chosen.
        A mask that is a pandas Series is aligned by its index, which must be the obs names or the default index.
    window
        Rows that the optimized loader reads together. More rows read faster and take more memory.
    elem
        Place of the matrix: "X", "raw/X", "layers/counts", "obsm/X_pca"; or ``{key: place}`` for several, each
        delivered under its key. In a MuData they are "mod/rna/X", "mod/rna/obsm/X_pca", and "obsm/X_mofa" of all cells.
        Of several modalities, the rows are the cells of the whole MuData, with its obs: a cell that a modality lacks is
        a row of zeros there, and ``"<key>_measured"``, bool ``[B]``, is False. Of a Cell Ranger 2 file with several
        genomes it is one of them: "GRCh38".
    cells
        Which cells of a MuData: "all"; "common", those that all modalities of ``elem`` have; or a list of modalities
        that have them. None: "all" where ``elem`` has several modalities, else the rows and the obs of the one.
    obs_columns
        Obs columns to deliver; None for all, ``[]`` for none. Of the cells of a MuData these are the columns of its
        obs, and those of modalities as "rna:leiden", missing where a cell was not measured.
    var_subset
        Genes to deliver, in this order: names, integer positions, a slice, or a boolean mask (a Series is aligned by
        its index); None for all. It applies to the matrices over genes, or, if there is none, to those in obsm.
        ``{key: subset}`` selects for each matrix. `NormalizeTotal` still sums over all genes of the matrix.
    var_column
        Column of var in which the names of ``var_subset`` are looked up, for files whose genes have ids for names:
        ``var_subset=["CD3E"], var_column="feature_name"`` (CELLxGENE). Numbers are given as texts; a mask and a slice
        mean positions. None: they are names of genes. Those of `Tokens` are looked up there, too.
    var_names, make_unique
        Of Cell Ranger's files: whether features are named by "gene_symbols" (None, the default) or "gene_ids", as in
        ``scanpy.read_10x_mtx``; and whether "-1", "-2", … is put after repeated names, as
        `anndata.AnnData.var_names_make_unique` does.
    feature_types
        Types of features to deliver, one or a list: "Gene Expression", "Antibody Capture". They are values of the
        column "feature_types" of var, which Cell Ranger's files have; those of version 2 have "Gene Expression"
        alone, which they do not tell. ``var_subset`` chooses among these features, and
        `NormalizeTotal` sums over them, as if there were no others.
    categories
        "str": text and categorical columns as text. "code": as int64 codes, -1 for missing values; the attribute
        `categories` lists their labels.
    output
        "dense": strided tensors ``[B, n_vars]``. "csr": torch sparse CSR tensors with sorted, distinct columns.
        `Tokens`: pairs of genes and values, for transformers.
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
    io_depth
        Reads in flight on slow storage (network mounts, cold disks), in threads that only wait. There the bytes of a
        window are read ahead of decoding, and those of the next window too. "auto": 32. More reads help if each takes
        long; 0 reads nothing ahead. Bytes in the page cache are never read ahead.
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
    chunk_size
        Another name of ``window``, as in anndata.

    Raises
    ------
    TypeError
        If ``transform`` is not a Transform, or an argument has the wrong type.
    ValueError
        If a number is below 1, an option is unknown, a mask has the wrong length or index, a key of ``elem`` is
        reserved or an obs column's, sources have different genes and one of them repeats a gene name, or ``cells`` is
        given and a source is not a MuData.
    IndexError
        If a position of ``obs_subset`` or ``var_subset`` is out of range.
    KeyError
        If an ``elem``, modality, obs column or gene does not exist; the message suggests similar names.
    OSError
        If the file cannot be read; later, `StaleFileError` if it has changed.
    StaleDataError
        Later, if an AnnData has other cells or genes than now.
    FormatError
        If the file is damaged or of no AnnData or MuData; `UnsupportedError` if annfeed recognises its format.

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

    _reader_type = RowReader

    def __init__(
        self,
        adata_or_path: AnnDataOrPath | Iterable[AnnDataOrPath] | Mapping[str, AnnDataOrPath],
        *,
        transform: Transform | None = None,
        obs_subset: npt.ArrayLike | slice | None = None,
        window: int = _WINDOW,
        elem: str | Mapping[str, str] = "X",
        cells: Literal["all", "common"] | Sequence[str] | None = None,
        obs_columns: Sequence[str] | None = None,
        var_subset: Sequence[str] | npt.ArrayLike | Mapping[str, Any] | slice | None = None,
        var_column: str | None = None,
        var_names: Literal["gene_symbols", "gene_ids"] | None = None,
        make_unique: bool = False,
        feature_types: str | Sequence[str] | None = None,
        categories: Literal["str", "code"] = "str",
        output: Literal["dense", "csr"] | Tokens = "dense",
        dtype: torch.dtype = torch.float32,
        cache: str | int = "auto",
        threads: int | None = None,
        io_depth: int | Literal["auto"] = "auto",
        strict: bool = False,
        return_index: bool = False,
        join: Literal["inner", "outer"] = "inner",
        label: str | None = None,
        keys: Iterable[str] | None = None,
        index_unique: str | None = None,
        max_open_files: int | None = None,
        chunk_size: int | None = None,
    ) -> None:
        # It brings anndata, pandas and h5py with it: seconds that `import annfeed` should not take.
        from annfeed.inputs.many import Joining, open_sources

        check_transform(transform)
        self.window = _window(window, chunk_size)
        self.cache = cache
        cache_budget(cache)
        dtype_name(dtype)
        check_output(output)
        if categories not in ("str", "code"):
            raise ValueError(f"categories is {categories!r}; expected one of ('str', 'code')")
        self.elem = elem
        options: dict[str, Any] = {
            "transform": transform,
            "output": output,
            "dtype": dtype,
            "threads": None if threads is None else integer("threads", threads),
            "categories": categories,
            "return_index": return_index,
            "var_column": var_column,
        }
        opened = open_sources(
            adata_or_path,
            elem,
            obs_columns,
            var_subset,
            Joining(join=join, label=label, keys=keys, index_unique=index_unique, max_open_files=max_open_files),
            cache=cache,
            threads=reading_threads(options["threads"]),
            io_depth=reads_in_flight(io_depth),
            strict=strict,
            cells=cells,
            features=FeatureOptions.checked(var_names, make_unique, feature_types),
            totals=any(map(needs_totals, steps_of(transform))) or (isinstance(output, Tokens) and output.needs_totals),
            # It is for var_subset, for the names of tokens, or for both.
            var_column=None if var_subset is None and names_genes(output) else var_column,
        )
        self._origin = opened.origin
        check_keys(opened.matrices, {f"obs_{column}" for column in opened.obs.columns}, opened.measured)
        #: Range of the rows of each source, before ``obs_subset``; ``"index"`` counts the same way.
        self.source_rows = opened.rows
        rows = opened.rows_among(row_subset(obs_subset, opened.obs.n_rows, lambda: opened.obs.names))
        options["measured"] = opened.measured
        self.reader = self._reader_type(opened.matrices, opened.obs, opened.places, rows, **options)
        if log.isEnabledFor(logging.INFO) and isinstance(self.reader.first.source, FileSource):
            log.info("%s", self.inspect())

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
        sets: CellSets | None = None,
        **kwargs: Unpack[TorchKeywords],
    ) -> WindowLoader:
        """Return the loader that reads windows of rows (``window``) and cuts batches from them.

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
            repeats). It must return the same on every rank; ranks share the positions. Each rank keeps all of them: 8
            bytes a position.
        uneven
            With several ranks, if some would have one batch less: "pad" repeats a row of another rank on these, "drop"
            leaves out a row on the others, "keep" lets ranks differ by one batch (not for DDP). With several ranks
            every batch has ``"is_padding"``, bool ``[B]``, True for repeated rows.
        sets
            An `annfeed.CellSets`: batches are of ``batch_size`` sets of cells, beside controls if it says so.
            ``drop_last``, ``balance``, ``n_samples`` and ``uneven`` then are of sets, and ``weights`` is a dict or a
            Series with a number for each group, which gets a share of the sets in proportion. With ``shuffle=False``,
            groups follow each other, and cells and controls come in the order of the dataset.
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
            sets=sets,
            **kwargs,
        )

    def predict_loader(self, batch_size: int = 32, **kwargs: Unpack[PredictKeywords]) -> WindowLoader:
        """Return a loader that delivers each row once, in the dataset's order, with its ``"index"``.

        Each of several ranks delivers a contiguous share, rank 0 the first rows. Shares differ by at most one row, so a
        rank may have one batch more than another.

        Parameters
        ----------
        batch_size
            Rows of a batch; the last of each rank may be shorter.
        **kwargs
            Any other keyword of `get_optimized_dataloader` but ``shuffle``, ``drop_last``, ``return_index`` and
            ``sets``.

        Raises
        ------
        TypeError
            If a keyword is unknown or one of these four.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(5, dtype="float32")), obs_subset=[4, 0, 2])
        >>> [batch["index"].tolist() for batch in dataset.predict_loader(batch_size=2)]
        [[4, 0], [2]]
        """
        if "sets" in kwargs:
            raise TypeError(
                "predict_loader got sets; expected none, as it delivers each row once, by itself. Use "
                "get_optimized_dataloader(sets=…, shuffle=False)"
            )
        loader = WindowLoader(
            self, batch_size=batch_size, shuffle=False, drop_last=False, return_index=True, uneven="keep", **kwargs
        )
        if isinstance(loader.sampler, PlanSampler):  # one of the user's draws as it says
            loader.sampler.draws_anew = False
        return loader


def _window(window: int, chunk_size: int | None) -> int:
    if chunk_size is None:
        return integer("window", window)
    if window is not _WINDOW and window != chunk_size:
        raise ValueError(f"window is {window} and chunk_size is {chunk_size}, another name of it; pass one of them")
    return integer("chunk_size", chunk_size)
