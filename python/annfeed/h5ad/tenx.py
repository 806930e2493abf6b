"""Cell Ranger's files (10x Genomics, ``.h5``): how they are recognised, and where matrix, barcodes and features lie.

Cell Ranger 3 and later has one group, ``matrix``; before, there was one for each genome. Neither has attributes that
say so: a file is known by what is in it. The matrix is stored by columns of features x barcodes, which is by rows of
barcodes x features. rust/h5/tenx.rs knows its shape, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from annfeed.errors import FormatError, UnsupportedError
from annfeed.h5ad.file import open_h5py

#: The group of Cell Ranger 3 and later.
_MATRIX = "matrix"
_ARRAYS = ("data", "indices", "indptr", "shape")
#: Groups at the top of a file that are looked at for those of genomes.
_MOST_GROUPS = 50
#: Features' arrays that are no further columns of var: scanpy leaves them out.
_NO_COLUMNS = ("name", "feature_type", "id", "gene_id", "_all_tag_keys")
#: What h5py raises of damaged files.
_DAMAGED = (KeyError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class FeatureOptions:
    """Which features are wanted, and how those of Cell Ranger's files are named.

    Parameters
    ----------
    names
        "gene_symbols" or "gene_ids"; None for symbols, where the user did not choose.
    make_unique
        Whether "-1", "-2", … is put after repeated names.
    types
        The values of ``feature_types`` in var; None for all.
    """

    names: Literal["gene_symbols", "gene_ids"] | None = None
    make_unique: bool = False
    types: tuple[str, ...] | None = None

    @classmethod
    def checked(cls, var_names: Any, make_unique: Any, feature_types: Any) -> FeatureOptions:
        """Return what a user passed; TypeError or ValueError for what is none of these.

        Examples
        --------
        >>> FeatureOptions.checked("gene_ids", False, "Gene Expression").types
        ('Gene Expression',)
        """
        if var_names not in (None, "gene_symbols", "gene_ids"):
            raise ValueError(f"var_names is {var_names!r}; expected 'gene_symbols', 'gene_ids' or None")
        if not isinstance(make_unique, bool):
            raise TypeError(f"make_unique is {make_unique!r}; expected True or False")
        if feature_types is None:
            return cls(var_names, make_unique)
        wanted = (feature_types,) if isinstance(feature_types, str) else feature_types
        types = tuple(wanted) if isinstance(wanted, Iterable) else (None,)
        if not all(isinstance(one, str) for one in types):
            raise TypeError(f"feature_types is {feature_types!r}; expected a text, a list of texts, or None")
        if not types:
            raise ValueError("feature_types is empty; expected at least one type, or None for all")
        return cls(var_names, make_unique, types)

    def refuse_others(self, place: str) -> None:
        """Raise ValueError if features are to be named otherwise, of a source that is no Cell Ranger file."""
        if self.names is None and not self.make_unique:
            return
        given, remedy = "make_unique=True", "of an AnnData call adata.var_names_make_unique() before it is written"
        if self.names is not None:
            given, remedy = f"var_names={self.names!r}", "var_column= finds genes by a column of var"
        raise ValueError(
            f"{given} is given, and {place} is no Cell Ranger file (10x Genomics); expected one, as its features have "
            f"symbols and ids. Leave it out; {remedy}"
        )


@dataclass(frozen=True)
class TenX:
    """The matrix of a Cell Ranger file.

    Parameters
    ----------
    group
        "matrix", or the name of a genome.
    version
        Of the layout: 2, or 3 for all later ones.
    """

    group: str
    version: Literal[2, 3]

    @property
    def cells(self) -> str:
        """Where the barcodes lie."""
        return f"{self.group}/barcodes"

    @property
    def features(self) -> str:
        """Where the features lie: a group, or the array of their ids."""
        return f"{self.group}/{'features' if self.version == 3 else 'genes'}"

    @property
    def flags(self) -> str:
        """Where it may say of each barcode whether it is a cell; bool, or numbers that are 0 for False."""
        return f"{self.group}/filtered_barcodes"

    def obs_columns(self, file: Any) -> dict[str, str]:
        """Return the columns of obs: the array of each, by name."""
        return {"filtered_barcodes": self.flags} if self.flags in file else {}

    def name_arrays(self, file: Any) -> tuple[str, str, str]:
        """Return the arrays of the features' symbols, their genes' ids, and their own ids, by which they differ.

        The two ids are one, except where features are probes of genes.
        """
        if self.version == 2:
            return f"{self.group}/gene_names", f"{self.group}/genes", f"{self.group}/genes"
        gene_id = f"{self.features}/gene_id"
        own = f"{self.features}/id"
        return f"{self.features}/name", gene_id if gene_id in file else own, own

    def var_columns(self, file: Any, names: str | None) -> dict[str, str]:
        """Return the columns of var, in scanpy's order: the array of each, by name."""
        symbols, genes, own = self.name_arrays(file)
        columns = {"gene_symbols": symbols} if names == "gene_ids" else {"gene_ids": genes}
        if own != genes:
            columns["probe_ids"] = own
        if self.version == 2:
            return columns
        columns["feature_types"] = f"{self.features}/feature_type"
        group = _get(file, self.features)
        more = [name for name in group if name not in _NO_COLUMNS] if hasattr(group, "keys") else []
        return columns | {name: f"{self.features}/{name}" for name in more if hasattr(group.get(name), "dtype")}

    def shape(self, file: Any) -> tuple[int, int]:
        """Return the number of barcodes and of features."""
        features, barcodes = file[f"{self.group}/shape"][()]
        return int(barcodes), int(features)

    def array(self, file: Any, name: str, path: str) -> Any:
        """Return the one-dimensional array ``name`` of the file at ``path``; FormatError if there is none."""
        found = _get(file, name)
        if getattr(found, "ndim", None) != 1:
            what = "no array" if found is None or not hasattr(found, "ndim") else f"an array of {found.ndim} axes"
            raise FormatError(
                f"{path}: found {what} '{name}' in a Cell Ranger file (10x Genomics); expected one with a value for "
                "each barcode or feature. Copy or download the file again"
            )
        return found


def find_tenx(file: Any) -> list[TenX]:
    """Return the matrices of an open file, if it is one of Cell Ranger's; one for each genome of version 2."""
    try:
        if "obs" in file:  # an .h5ad file, mostly
            return []
        if _holds(_get(file, _MATRIX), ("barcodes",), (*_ARRAYS, "features")):
            return [TenX(_MATRIX, 3)]
        names = islice(file, _MOST_GROUPS)
        return [TenX(name, 2) for name in names if _holds(_get(file, name), ("barcodes", "genes"), _ARRAYS)]
    except _DAMAGED:
        return []


def is_tenx(path: str) -> bool:
    """Return whether a file is one of Cell Ranger's; False for one that cannot be opened.

    Examples
    --------
    >>> is_tenx("/no/such/file.h5")
    False
    """
    try:
        with open_h5py(path) as file:
            return bool(find_tenx(file))
    except (OSError, ValueError):
        return False


def refuse_to_write(path: str, file: Any) -> None:
    """Raise UnsupportedError if an open file, to which something is to be added, is one of Cell Ranger's."""
    if find_tenx(file):
        raise UnsupportedError(
            f"{path}: found a Cell Ranger file (10x Genomics), which has no obs and no obsm to write to; expected an "
            f".h5ad file. Make one once, with annfeed.rewrite({path!r}, 'cells.h5ad'), and write to that"
        )


def _get(file: Any, name: str) -> Any:
    """What lies there; None for nothing, and for what cannot be opened."""
    try:
        return file.get(name)
    except _DAMAGED:
        return None


def _holds(group: Any, all_of: tuple[str, ...], any_of: tuple[str, ...]) -> bool:
    return hasattr(group, "keys") and all(n in group for n in all_of) and any(n in group for n in any_of)
