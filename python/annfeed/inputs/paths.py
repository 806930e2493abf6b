"""What users pass for several files: lists, mappings and patterns, as a list of sources with a key each.

It looks for files by pattern and opens none.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, TypeAlias

import anndata

from annfeed.inputs.patterns import matching

AnnDataOrPath: TypeAlias = "anndata.AnnData | str | bytes | os.PathLike[str] | os.PathLike[bytes]"


@dataclass(frozen=True)
class Sources:
    """Paths and AnnData objects in the order of their rows, with a different text for each."""

    sources: list[Any]
    keys: list[str]

    def place(self, number: int) -> str:
        """The words for a source in messages."""
        source = self.sources[number]
        return f"AnnData {self.keys[number]!r}" if isinstance(source, anndata.AnnData) else os.fsdecode(source)


def find_sources(sources: Any, keys: Iterable[str] | None) -> Sources | None:
    """Return the sources that a user means; None where it is a single one.

    They are a path, an AnnData, a pattern like "atlas/*.h5ad" (sorted by name; ``**`` also looks in folders below), or
    a list of these, or ``{key: path or AnnData}``. Without ``keys`` they are "0", "1", …, as in `anndata.concat`.

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
    elif isinstance(sources, Iterable) and not _is_mudata(sources) and getattr(sources, "ndim", 1) == 1:
        found = [match for source in sources for match in _matches(_as_source(source))]
    else:
        raise TypeError(
            f"adata_or_path is a {type(sources).__name__}; expected an AnnData or the path of an .h5ad, or a list of "
            f"these{_of_mudata(sources)}"
        )
    if not found:
        raise ValueError("there are no sources: the list is empty; expected paths or AnnData objects")
    return Sources(found, _checked_keys(keys, len(found)))


def _is_one(source: Any) -> bool:
    return isinstance(source, str | bytes | os.PathLike | anndata.AnnData)


def _is_mudata(source: Any) -> bool:
    # Without mudata: whoever has one has imported it.
    return any(kind.__name__ == "MuData" for kind in type(source).__mro__)


def _of_mudata(source: Any) -> str:
    if not _is_mudata(source):
        return ""
    return (
        '. Pass one of its modalities, as mdata["rna"], or write it and pass the path of the .h5mu with '
        'elem="mod/rna/X"'
    )


def _as_source(source: Any) -> Any:
    if _is_one(source):
        return source
    raise TypeError(
        f"a source is a {type(source).__name__}; expected an AnnData or the path of an .h5ad{_of_mudata(source)}"
    )


def _matches(source: Any) -> list[Any]:
    if isinstance(source, anndata.AnnData):
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
