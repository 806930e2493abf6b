"""`Elem`: the place of a matrix, parsed from ``elem=``, with its obs and var. No file is opened here.

In a Cell Ranger file another place is meant: `annfeed.h5ad.elem_in_file.elem_in` finds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from annfeed.errors import UnknownNameError
from annfeed.h5ad.tenx import FeatureOptions, TenX

#: "mod/rna/raw/X" -> prefix "mod/rna/", place "raw/X". Modalities first, as one may be named "raw"; then the shortest
#: prefix, as "raw/" must not become one.
_ELEM = re.compile(r"^(?P<prefix>(?:mod/[^/]+/)*(?:.+?/)??)(?P<place>X|raw/X|raw\.X|(?:layers|obsm)/[^/]+)$")
#: "mod/rna/obs" -> "rna".
_MODALITY = re.compile(r"^mod/([^/]+)/obs$")


@dataclass(frozen=True)
class Elem:
    """The place of a matrix in a file.

    Parameters
    ----------
    path
        HDF5 path of the matrix.
    obs
        HDF5 path of its obs.
    var
        HDF5 path of its var; None for obsm, whose columns are not in var; "" if only a Cell Ranger file can have it.
    features
        Which features are wanted, and how those of Cell Ranger's files are named.
    tenx
        Where it lies in a Cell Ranger file; None for other files.
    """

    path: str
    obs: str
    var: str | None
    features: FeatureOptions = field(default=FeatureOptions(), repr=False)
    tenx: TenX | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, elem: Any) -> Elem:
        """Parse a place.

        Raises
        ------
        TypeError
            If it is not a text.
        UnknownNameError
            If no matrix over cells can be there. The name of a genome is taken: a Cell Ranger file may have it.

        Examples
        --------
        >>> Elem.parse("mod/rna/layers/counts")
        Elem(path='mod/rna/layers/counts', obs='mod/rna/obs', var='mod/rna/var')
        """
        if not isinstance(elem, str):
            raise TypeError(f"elem is {elem!r}; expected a text like 'X' or a dict {{key: place}}")
        match = _ELEM.match(elem.strip("/"))
        if match is None:
            found = cls(elem.strip("/"), "", "")
            if "/" in found.path or not found.path:
                found.check()
            return found
        prefix, place = match["prefix"], match["place"]
        var = None if place.startswith("obsm/") else prefix + ("raw/var" if place.startswith("raw") else "var")
        return cls(prefix + place, prefix + "obs", var)

    @property
    def modality(self) -> str | None:
        """Name of the modality of a MuData that the matrix is in; None for a matrix that is in none.

        Examples
        --------
        >>> Elem.parse("mod/rna/X").modality, Elem.parse("obsm/X_mofa").modality
        ('rna', None)
        """
        match = _MODALITY.match(self.obs)
        return None if match is None else match[1]

    @property
    def inside(self) -> Elem:
        """The same place, looked up from the modality that it is in.

        Examples
        --------
        >>> Elem.parse("mod/rna/layers/counts").inside
        Elem(path='layers/counts', obs='obs', var='var')
        """
        if self.modality is None:
            return self
        return replace(Elem.parse(self.path.removeprefix(f"mod/{self.modality}/")), features=self.features)

    def check(self) -> None:
        """Raise UnknownNameError if only a Cell Ranger file can have this place."""
        if self.var == "":
            raise UnknownNameError(
                f"elem is {self.path!r}; expected 'X', 'raw/X', 'layers/<name>' or 'obsm/<name>' "
                "(in a nested AnnData with its path before it: 'mod/rna/X')"
            )


def parse_elems(
    elem: str | Mapping[str, str],
    features: FeatureOptions = FeatureOptions(),  # noqa: B008  # immutable
) -> dict[str, Elem]:
    """Return the places of a dataset's matrices by key; ValueError if there are none.

    Examples
    --------
    >>> parse_elems("X")
    {'X': Elem(path='X', obs='obs', var='var')}
    """
    places = dict(elem) if isinstance(elem, Mapping) else {"X": elem}
    if not places:
        raise ValueError("elem is empty; expected at least one {key: place}")
    return {key: replace(Elem.parse(place), features=features) for key, place in places.items()}
