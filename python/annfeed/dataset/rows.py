"""`RowDataset`: items, subsets, splits, obs and inspection of an open dataset.

How it is opened, and its loaders, are in dataset/anndataset.py; how rows become batches is in batches/reader.py.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt
import torch

from annfeed.arrays import Int64Array, integer
from annfeed.batches.items import Batch, Collate, Item, Items, split
from annfeed.batches.keys import FALLBACK
from annfeed.batches.tokens import TokenCollate, Tokens
from annfeed.dataset.annotations import AnnotatedRows, ReaderAttribute
from annfeed.dataset.description import dataset_report
from annfeed.display.html import as_html
from annfeed.display.text import as_repr
from annfeed.inputs.selection import as_positions, row_subset
from annfeed.inspection import Inspection, ManyInspections, inspect_file, inspect_files
from annfeed.order.splits import split_rows
from annfeed.sources.concat import ConcatSource
from annfeed.sources.file import FileSource
from annfeed.sources.frame import FrameFileSource
from annfeed.transforms.base import Transform


class RowDataset(AnnotatedRows):
    """What `AnnDataset` is when it is open: a torch Dataset over the rows of a `RowReader`."""

    #: Rows read together by the optimized loader.
    window: int
    #: Memory for decoded rows.
    cache: str | int

    @property
    def chunk_size(self) -> int:
        """Another name of `window`."""
        return self.window

    @chunk_size.setter
    def chunk_size(self, chunk_size: int) -> None:
        self.window = chunk_size

    transform = ReaderAttribute[Transform | None]()
    output = ReaderAttribute[str | Tokens]()
    dtype = ReaderAttribute[torch.dtype]()
    threads = ReaderAttribute[int | None]()
    return_index = ReaderAttribute[bool]()
    #: Path of each source, or a description of an AnnData.
    sources = ReaderAttribute[list[str]]()

    def rows_at(self, positions: Int64Array) -> Int64Array:
        """Return the rows of the file or AnnData at ``positions`` (int64 ``[n]``), as ``"index"`` has them.

        For a view of a backed AnnData these are rows of its file. For several sources they are rows of all sources one
        after the other; `source_rows` has the range of each.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> from annfeed import AnnDataset
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
        >>> from annfeed import AnnDataset
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
        >>> from annfeed import AnnDataset
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(3, dtype="float32")))
        >>> loader = torch.utils.data.DataLoader(dataset, batch_size=2, collate_fn=dataset.get_collate_fn())
        >>> next(iter(loader))
        {'X': tensor([[1., 0., 0.],
            [0., 1., 0.]])}
        """
        return TokenCollate(self.output) if isinstance(self.output, Tokens) else Collate()

    def head(self, n: int = 5) -> Batch:
        """Return the first ``n`` rows as a batch, as a loader without shuffling and collate function delivers them.

        Parameters
        ----------
        n
            Number of rows, 0 or more; all, if there are fewer.

        Examples
        --------
        >>> import anndata, numpy as np, pandas as pd
        >>> from annfeed import AnnDataset
        >>> obs = pd.DataFrame({"donor": ["d1", "d2", "d1"]}, index=["a", "b", "c"])
        >>> AnnDataset(anndata.AnnData(np.eye(3, dtype="float32"), obs=obs)).head(2)
        {'X': tensor([[1., 0., 0.],
                [0., 1., 0.]]), 'obs_donor': ['d1', 'd2']}
        """
        return self.reader.batch(np.arange(min(integer("n", n, least=0), len(self)), dtype=np.int64))

    def split(
        self,
        fractions: Mapping[str, float],
        *,
        group_by: str | None = None,
        stratify: str | None = None,
        seed: int = 0,
    ) -> dict[str, Self]:
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
        >>> from annfeed import AnnDataset
        >>> obs = pd.DataFrame({"donor": list("aabbccdd")}, index=list("12345678"))
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(8, dtype="float32"), obs=obs))
        >>> parts = dataset.split({"train": 0.75, "test": 0.25}, group_by="donor")
        >>> {name: sorted(set(part.obs["donor"])) for name, part in parts.items()}
        {'train': ['a', 'b', 'c'], 'test': ['d']}
        """
        if self.reader.rows is not None and len(np.unique(self.reader.rows)) < len(self.reader.rows):
            raise ValueError(
                f"{self.in_a_line()}: obs_subset repeats rows, which could come into two parts; split first"
            )
        groups = None if group_by is None else self.reader.label_codes(group_by, needed_by="group_by")[0]
        strata = None if stratify is None else self.reader.label_codes(stratify)[0]
        parts = split_rows(len(self), fractions, groups=groups, strata=strata, seed=seed)
        return {name: self._view(positions) for name, positions in parts.items()}

    def subset(self, rows: npt.ArrayLike | slice) -> Self:
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
        >>> from annfeed import AnnDataset
        >>> dataset = AnnDataset(anndata.AnnData(np.eye(4, dtype="float32")), obs_subset=[3, 1, 0])
        >>> dataset.subset([2, 0])[0]["X"]
        tensor([1., 0., 0., 0.])
        """
        chosen = row_subset(rows, len(self), lambda: self.obs_names, what="rows", named="dataset.obs_names")
        return self._view(np.arange(len(self)) if chosen is None else chosen)

    def _view(self, positions: Int64Array) -> Self:
        self.reader.obs.source.check_rows()
        view = copy.copy(self)
        view.reader = self.reader.part(positions)
        return view

    def preload(self, device: torch.device | str | None = None) -> Self:
        """Decode all rows of the dataset, once, keep them in memory, and return the dataset.

        Batches then come from there: the same ones, in the same order. Parts that are made later (`split`, `subset`)
        use the rows, too. What an AnnData in memory holds is taken now, and later edits of its matrices are not seen.
        Workers that are forked share the rows; other processes get the file, or the AnnData as it is then.

        Parameters
        ----------
        device
            None and "cpu": in the host's memory, in narrow types: about 3 bytes a stored count. Another, as "cuda":
            there, as CSR of the dataset's dtype (8 bytes a float32). Batches are then made there, with all their
            tensors, and transforms get these (their results may differ from the CPU's by rounding); loaders need
            ``num_workers=0``.

        Raises
        ------
        MemoryError
            If the rows take more memory than is free; the message says how much. Nothing is kept then.
        ValueError
            If the dataset is closed; with a device, if it is not there or takes no CSR tensors, or if batches are of
            tokens, which are made in the host's memory.

        Examples
        --------
        >>> import anndata, numpy as np, tempfile
        >>> from annfeed import AnnDataset
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     anndata.AnnData(np.eye(3, dtype="float32")).write_h5ad(f"{folder}/three.h5ad")
        ...     dataset = AnnDataset(f"{folder}/three.h5ad").preload()
        >>> next(iter(dataset.get_optimized_dataloader(2, shuffle=False)))["X"]
        tensor([[1., 0., 0.],
                [0., 1., 0.]])
        """
        try:
            place = None if device is None else torch.device(device)
        except RuntimeError as error:
            raise ValueError(f"device is {device!r}; expected one that torch knows, as 'cuda' ({error})") from None
        self.reader.preload(None if place is None or place.type == "cpu" else place)
        return self

    def stats(self) -> dict[str, int]:
        """Return counts of what was read so far in this process.

        ``opens``: times a file was opened. ``bytes_read``, ``bytes_decoded``: bytes of chunks before and after
        decompression. ``bytes_ahead``: those read ahead of decoding. ``waits``: times that a
        decoding thread waited for bytes. ``waited_us``: microseconds waited, summed over threads. ``cache_hits``,
        ``cache_misses``: rows. ``cache_bytes``: bytes that the cache of these matrices holds now.
        ``fallback_controls``: controls of sets of cells that matched by a fallback only (see `annfeed.Controls`).

        Examples
        --------
        >>> import anndata, numpy as np
        >>> from annfeed import AnnDataset
        >>> AnnDataset(anndata.AnnData(np.eye(3, dtype="float32"))).stats()["opens"]
        0
        """
        return {**self.reader.read_stats(), FALLBACK: self.reader.counts[FALLBACK]}

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
        >>> from annfeed import AnnDataset
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     anndata.AnnData(np.eye(3, dtype="float32")).write_h5ad(f"{folder}/three.h5ad")
        ...     AnnDataset(f"{folder}/three.h5ad").inspect().cost["exact random"]
        1.0
        """
        source = self.reader.first.source
        of_files = FileSource | FrameFileSource
        found = [part for part in source.parts() if isinstance(part, of_files)]
        if not found:
            raise ValueError(f"{source.place} is in memory; expected a file; there is nothing to inspect")
        for part in found:
            part.check_unchanged()
        if isinstance(source, ConcatSource):
            return inspect_files([(part.path, part.elem) for part in found], self.window)
        return inspect_file(found[0].path, found[0].elem, self.window)

    def close(self) -> None:
        """Close the files. A closed dataset cannot be read."""
        self.reader.forget_preloaded()
        for matrix in self.reader.matrices.values():
            matrix.source.close()

    def __enter__(self) -> Self:
        """Return the dataset; leaving the ``with`` block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        """Return shape and place in the first line, then sources, genes, obs columns, batches, cache and state."""
        return as_repr(dataset_report(self))

    def _repr_html_(self) -> str:
        """Return the same for notebooks."""
        return as_html(dataset_report(self))

    def __dir__(self) -> list[str]:
        """Return the public names, for completion."""
        hidden = {"reader", "in_a_line"}
        return [name for name in super().__dir__() if name not in hidden and (name[0] != "_" or name.startswith("__"))]

    def in_a_line(self) -> str:
        """Return shape and places, for messages.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> from annfeed import AnnDataset
        >>> AnnDataset(anndata.AnnData(np.eye(3, dtype="float32"))).in_a_line()
        "AnnDataset(3 x 3, X=AnnData: 'X')"
        """
        places = ", ".join(f"{key}={matrix.source.place}" for key, matrix in self.reader.matrices.items())
        return f"{type(self).__name__}({len(self)} x {self.n_vars}, {places})"
