"""`Inspection` and `ManyInspections`: what was found of one file or of several, and what is said of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from annfeed.display.html import as_html
from annfeed.display.report import Bar, Bars, Facts, Report, Table, Tone
from annfeed.display.text import as_text, in_gib
from annfeed.inspection.costs import cache_for

#: Decoded bytes of a chunk above which a warning is given: each row of it needs the whole chunk.
_GIANT_CHUNK = 64 << 20
#: Obs columns, and files, that people are shown at most.
_MOST_COLUMNS = 40
_MOST_FILES = 40


@dataclass(frozen=True)
class Inspection:
    """How a matrix is stored, as `AnnDataset.inspect` and ``annfeed inspect`` describe it.

    Parameters
    ----------
    file, elem
        Path of the file, and the place of the matrix in it.
    encoding
        "csr", "csc" or "dense".
    shape
        Rows and columns.
    dtype
        dtype of the values, and of the column indices of a sparse matrix.
    nnz
        Number of stored values.
    chunk
        Elements of a chunk along each axis; None if the values are contiguous.
    rows_per_chunk
        Mean number of rows with values in a chunk; 0 if each row can be read alone.
    chunk_bytes
        Bytes of a chunk after the filters, the largest of the matrix; 0 without chunks.
    filters
        Names of the filters, in the order of writing.
    stored_bytes_per_row
        Bytes of a row on disk, on average.
    decoded_bytes_per_row
        Bytes of a row after the filters, on average.
    held_bytes
        Bytes that all rows take in the cache, about.
    reader
        "rust" or "h5py".
    window
        Rows read together, for ``cost``.
    cost
        For each order the expected decoded bytes per delivered byte, without a cache. Sets of cells, whose rows are
        scattered over the file, cost what "exact random" does.
    declined
        Why h5py reads the matrix; None if the core does.
    conversion_bytes
        Bytes of memory that the first read of a CSC matrix takes; 0 for other encodings.
    obs_columns
        For each obs column "categorical (12 categories)", "text", or the dtype.
    kind
        Of the file: "h5ad", or "10x" for one of Cell Ranger's.

    Examples
    --------
    >>> import anndata, numpy as np, tempfile
    >>> from annfeed import AnnDataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     anndata.AnnData(np.eye(3, dtype="float32")).write_h5ad(f"{folder}/three.h5ad")
    ...     found = AnnDataset(f"{folder}/three.h5ad").inspect()
    >>> found.encoding, found.shape, found.filters, found.reader
    ('dense', (3, 3), (), 'rust')
    >>> found.advice
    ('no filters: any order costs the same; block_size=16 saves calls on slow disks',)
    """

    file: str
    elem: str
    encoding: str
    shape: tuple[int, int]
    dtype: str
    nnz: int
    chunk: tuple[int, ...] | None
    rows_per_chunk: float
    chunk_bytes: int
    filters: tuple[str, ...]
    stored_bytes_per_row: float
    decoded_bytes_per_row: float
    held_bytes: int
    reader: str
    window: int
    cost: dict[str, float] = field(default_factory=dict)
    declined: str | None = None
    conversion_bytes: int = 0
    obs_columns: dict[str, str] = field(default_factory=dict)
    kind: str = "h5ad"

    @property
    def place(self) -> str:
        """File and element."""
        return f"{self.file}: '{self.elem}'"

    @property
    def advice(self) -> tuple[str, ...]:
        """Recommended settings, and warnings."""
        return _advice([self])

    def as_dict(self) -> dict[str, Any]:
        """Return all of it in types that JSON has.

        The keys are the parameters of the class, "place" and "advice"; a later version may add some.

        Examples
        --------
        >>> import anndata, json, numpy as np, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     anndata.AnnData(np.eye(3, dtype="float32")).write_h5ad(f"{folder}/three.h5ad")
        ...     from annfeed import AnnDataset
        ...     found = AnnDataset(f"{folder}/three.h5ad").inspect().as_dict()
        >>> json.loads(json.dumps(found)) == found, found["shape"]
        (True, [3, 3])
        """
        found = dataclasses.asdict(self) | {"shape": list(self.shape), "filters": list(self.filters)}
        found["chunk"] = None if self.chunk is None else list(self.chunk)
        return {"place": self.place, **found, "advice": list(self.advice)}

    def report(self) -> Report:
        """Return what people are shown."""
        rows, columns = self.shape
        per_chunk = f", {self.rows_per_chunk:.3g} rows a chunk" if self.rows_per_chunk else ""
        facts: dict[str, str | list[str]] = {
            "encoding": f"{self.encoding}, {self.dtype}, {rows:,} x {columns:,}, {self.nnz:,} values stored",
            "chunks": f"{self.chunk or 'none (one run)'}{per_chunk}",
            "filters": f"{' + '.join(self.filters) or 'none'} (read by {self.reader})",
        }
        if self.kind == "10x":
            facts = {"file": "10x Genomics (Cell Ranger), features x barcodes by columns", **facts}
        if self.declined is not None:
            facts["h5py"] = f"because of {self.declined}"
        facts["a row"] = f"{self.stored_bytes_per_row:,.0f} bytes stored, {self.decoded_bytes_per_row:,.0f} decoded"
        listed = [f"{name}: {kind}" for name, kind in list(self.obs_columns.items())[:_MOST_COLUMNS]]
        if len(self.obs_columns) > _MOST_COLUMNS:
            listed.append(f"and {len(self.obs_columns) - _MOST_COLUMNS} more (all with --json)")
        told: dict[str, str | list[str]] = {"advice": list(self.advice)} if self.advice else {}
        if listed:
            told["obs"] = listed
        heading = f"decoded for each byte delivered, windows of {self.window:,} rows, no cache:"
        return Report(self.place, [Facts(facts, {"h5py": "fair"}), *_bars(heading, self.cost), Facts(told)])

    def __str__(self) -> str:
        return as_text(self.report())

    def _repr_html_(self) -> str:
        return as_html(self.report())


@dataclass(frozen=True)
class ManyInspections:
    """How the matrices of several files are stored, as `AnnDataset.inspect` and ``annfeed inspect`` describe them.

    Parameters
    ----------
    files
        One `Inspection` for each file, in the order of the rows; AnnData objects in memory are left out.
    unreadable
        For each file that ``annfeed inspect`` could not read what is wrong with it; they are not among ``files``.

    Examples
    --------
    >>> from annfeed.inspection import ManyInspections
    >>> ManyInspections(()).cost
    {}
    """

    files: tuple[Inspection, ...]
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Rows of all files."""
        return sum(file.shape[0] for file in self.files)

    @property
    def cost(self) -> dict[str, float]:
        """For each order the expected decoded bytes per delivered byte, over all files that have a cost."""
        with_cost = [file for file in self.files if file.cost]
        weights = [file.decoded_bytes_per_row * file.shape[0] for file in with_cost]
        total = sum(weights)
        if total == 0:
            return {}
        return {
            order: sum(file.cost[order] * weight for file, weight in zip(with_cost, weights, strict=True)) / total
            for order in with_cost[0].cost
        }

    @property
    def advice(self) -> tuple[str, ...]:
        """Recommended settings for all files together, and warnings of some."""
        return _advice(self.files)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it in types that JSON has.

        The keys are "n_rows", "cost", "advice", "files" with a dict for each, and "unreadable".

        Examples
        --------
        >>> from annfeed.inspection import ManyInspections
        >>> ManyInspections(()).as_dict()
        {'n_rows': 0, 'cost': {}, 'advice': [], 'files': [], 'unreadable': {}}
        """
        found = {"n_rows": self.n_rows, "cost": self.cost, "advice": list(self.advice)}
        return {**found, "files": [file.as_dict() for file in self.files], "unreadable": dict(self.unreadable)}

    def report(self) -> Report:
        """Return what people are shown."""
        folder = _common_folder([*(file.file for file in self.files), *self.unreadable])
        elems = list(dict.fromkeys(file.elem for file in self.files))
        header = ["file", "encoding", "dtype", "rows", "columns", "filters", "rows a chunk", "read by"]
        rows = [
            [
                _within(folder, file.file),
                file.encoding,
                file.dtype.partition(" (")[0],  # of the values
                f"{file.shape[0]:,}",
                f"{file.shape[1]:,}",
                " + ".join(file.filters) or "none",
                f"{file.rows_per_chunk:.3g}" if file.rows_per_chunk else "",
                file.reader,
            ]
            for file in self.files[:_MOST_FILES]
        ]
        more = len(self.files) - len(rows)
        note = f"and {more} more (all with --json)" if more else ""
        of = f" of '{elems[0]}'" if len(elems) == 1 else ""
        title = f"{len(self.files)} file{'s' * (len(self.files) != 1)}, {self.n_rows:,} rows{of}" + (
            f", in {folder}" if folder else ""
        )
        if len(elems) > 1:  # of a collection without a common place
            header.append("matrix")
            rows = [[*row, file.elem] for row, file in zip(rows, self.files, strict=False)]
        heading = "decoded for each byte delivered, windows of all files together, no cache:"
        wrong = [[_within(folder, file), f"cannot be read: {error}"] for file, error in self.unreadable.items()]
        return Report(
            title,
            [
                Table(header, [*rows, *wrong], frozenset({"rows", "columns", "rows a chunk"}), note),
                *_bars(heading, self.cost),
                *([Facts({"advice": list(self.advice)})] if self.advice else []),
            ],
        )

    def __str__(self) -> str:
        return as_text(self.report())

    def _repr_html_(self) -> str:
        return as_html(self.report())


def _bars(heading: str, cost: dict[str, float]) -> list[Bars]:
    if not cost:
        return []
    # Keys of ``cost`` stay; people are told that sets of cells are read like this, too.
    words = {"exact random": "exact random, sets"}
    bars = [Bar(words.get(order, order), x, f"{x:.1f} x", _tone(x)) for order, x in cost.items()]
    return [Bars(heading, bars, least_end=4.0)]


def _tone(cost: float) -> Tone:
    return "good" if cost < 2 else "fair" if cost < 6 else "bad"


def _common_folder(paths: Sequence[str]) -> str:
    """Return the folder that all files are in; "" for none."""
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # no paths, or absolute and relative ones
        return ""


def _within(folder: str, path: str) -> str:
    return os.path.relpath(path, folder) if folder else path


def _advice(files: Sequence[Inspection]) -> tuple[str, ...]:
    """Return recommended settings for files that are read as one, and warnings."""
    advice = []
    stored = [file for file in files if file.nnz]  # without values there is nothing to save
    by_rows = [file for file in stored if file.encoding != "csc"]
    compressed = [file for file in by_rows if file.rows_per_chunk > 0]
    if compressed:
        cache = cache_for(sum(file.held_bytes for file in compressed))
        files_once = "the file" if len(files) == 1 else "each file"
        advice.append(f"exact random order with cache={cache!r} decodes {files_once} once, ever")
        advice.append("without that memory: block_size='auto', window=16384")
    elif by_rows:
        advice.append("no filters: any order costs the same; block_size=16 saves calls on slow disks")
    for chosen, told in (
        ([file for file in stored if file.encoding == "csc"], _of_csc),
        ([file for file in compressed if file.chunk_bytes > _GIANT_CHUNK], _of_giant_chunks),
    ):
        if chosen:
            advice.append(_which(chosen, files) + told(chosen))
    slow = [file for file in files if file.declined is not None]
    if slow and len(files) > 1:
        advice.append(f"{_which(slow, files)}read through h5py, which is slower, because of {slow[0].declined}")
    return tuple(advice)


def _which(chosen: Sequence[Inspection], files: Sequence[Inspection]) -> str:
    """Return the files that an advice is about: nothing where there is but one."""
    if len(files) == 1:
        return ""
    others = f" and {len(chosen) - 1} others" if len(chosen) > 2 else " and another" if len(chosen) == 2 else ""
    return f"{os.path.basename(chosen[0].file)}{others}: "


def _of_csc(files: Sequence[Inspection]) -> str:
    needed = sum(file.conversion_bytes for file in files)
    return (
        "stored by columns: the first read turns it into rows in memory, which takes "
        f"{needed:,} bytes of cache= ({in_gib(needed)}), in each worker; better written as CSR"
    )


def _of_giant_chunks(files: Sequence[Inspection]) -> str:
    largest = max(file.chunk_bytes for file in files)
    return (
        f"a chunk is {largest / 2**20:,.0f} MiB decoded, and any row needs all of it: "
        "write the file again with anndata to get smaller chunks"
    )
