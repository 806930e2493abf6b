"""What users pass for several files: lists, mappings and patterns, as a list of sources with a key each.

It looks for files by pattern and opens none.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import anndata

from annfeed.h5ad.mudata import is_mudata
from annfeed.inputs.patterns import matching

if TYPE_CHECKING:
    from mudata import MuData

AnnDataOrPath: TypeAlias = "anndata.AnnData | MuData | str | bytes | os.PathLike[str] | os.PathLike[bytes]"


@dataclass(frozen=True)
class Sources:
    """Paths and AnnData objects in the order of their rows, with a different text for each."""

    sources: list[Any]
    keys: list[str]

    def place(self, number: int) -> str:
        """The words for a source in messages."""
        source = self.sources[number]
        if is_in_memory(source):
            return f"{'MuData' if is_mudata(source) else 'AnnData'} {self.keys[number]!r}"
        return os.fsdecode(source)


def find_sources(sources: Any, keys: Iterable[str] | None) -> Sources | None:
    """Return the sources that a user means; None where it is a single one.

    They are a path, an AnnData or MuData, a pattern like "atlas/*.h5ad" (sorted by name; ``**`` also looks in folders
    below), or a list of these, or ``{key: path or AnnData}``. Without ``keys`` they are "0", "1", …, as in
    `anndata.concat`.

    Examples
    --------
    >>> find_sources(["a.h5ad", "b.h5ad"], None)
    Sources(sources=['a.h5ad', 'b.h5ad'], keys=['0', '1'])
    """
    if isinstance(sources, Mapping):
        if keys is not None:
            raise TypeError("keys= is given, and the sources are a dict, whose keys they are; give one of them only")
        keys, sources = list(sources), list(sources.values())
        found = [_as_source(source) for source in sources]
    elif _is_one(sources):
        found = _matches(sources)
        if keys is None and found == [sources]:
            return None
    elif isinstance(sources, AbstractSet):
        raise TypeError("the sources are a set, which has no order; pass a list, as sorted(…) gives")
    elif isinstance(sources, Iterable) and getattr(sources, "ndim", 1) == 1:
        found = [match for source in sources for match in _matches(_as_source(source))]
    else:
        raise TypeError(
            f"adata_or_path is a {type(sources).__name__}; expected a MuData, an AnnData or the path of an .h5ad, an "
            ".h5mu or a Cell Ranger .h5, or a list of these"
        )
    if not found:
        raise ValueError("there are no sources: the list is empty; expected paths or AnnData objects")
    return Sources(found, _checked_keys(keys, len(found)))


def is_in_memory(source: Any) -> bool:
    """Whether a source is an AnnData or a MuData, and not the path of a file.

    Examples
    --------
    >>> is_in_memory("cells.h5ad"), is_in_memory(anndata.AnnData())
    (False, True)
    """
    return isinstance(source, anndata.AnnData) or is_mudata(source)


def _is_one(source: Any) -> bool:
    return isinstance(source, str | bytes | os.PathLike) or is_in_memory(source)


def _as_source(source: Any) -> Any:
    if _is_one(source):
        return source
    raise TypeError(f"a source is a {type(source).__name__}; expected a MuData, an AnnData or the path of a file")


def _matches(source: Any) -> list[Any]:
    if is_in_memory(source):
        return [source]
    path = os.path.expanduser(os.fsdecode(source))
    found = matching(path)
    return [source] if found == [path] else list(found)


def _checked_keys(keys: Iterable[Any] | None, n: int) -> list[str]:
    if keys is None:
        return [str(i) for i in range(n)]
    if isinstance(keys, str):
        raise TypeError(f"keys is the text {keys!r}; expected a list of texts, one for each source")
    texts = [str(key) for key in keys]
    if len(texts) != n:
        raise ValueError(f"there are {len(texts)} keys for {n} sources; expected one for each")
    for text, count in Counter(texts).items():
        if count > 1:
            raise ValueError(f"the key {text!r} is there twice; expected a different one for each source")
    return texts
