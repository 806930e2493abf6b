"""The codecs that a file is written in: their filters of HDF5, and their levels."""

from __future__ import annotations

from dataclasses import dataclass

#: HDF5's numbers of filters.
_GZIP, _SHUFFLE, _LZF, _LZ4, _BITSHUFFLE, _ZSTD = 1, 2, 32000, 32004, 32008, 32015

#: A filter's number and values.
Filter = tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Codec:
    """How chunks are compressed.

    Parameters
    ----------
    name
        What ``codec=`` says.
    number
        HDF5's number of the filter.
    levels
        The lowest and the highest level; None for a codec without levels.
    level
        The one that is taken where none is said.
    shuffles
        Whether the codec shuffles by itself; the shuffle filter comes before all others.
    """

    name: str
    number: int
    levels: tuple[int, int] | None = None
    level: int = 0
    shuffles: bool = False

    def at(self, level: int | None) -> Codec:
        """Return the codec at another level.

        Raises
        ------
        ValueError
            If it has no such level.

        Examples
        --------
        >>> find_codec("gzip").at(6).level
        6
        """
        if level is None:
            return self
        if self.levels is None or not self.levels[0] <= level <= self.levels[1]:
            expected = "None, as it has no levels" if self.levels is None else f"{self.levels[0]} to {self.levels[1]}"
            raise ValueError(f"level is {level!r}; expected {expected} for codec={self.name!r}")
        return Codec(self.name, self.number, self.levels, level, self.shuffles)

    def filters(self, item_size: int) -> list[Filter]:
        """Return the filters for elements of ``item_size`` bytes, with the values that a reader finds in the file.

        Examples
        --------
        >>> find_codec("zstd").filters(4)
        [(2, (4,)), (32015, (3,))]
        """
        if self.number == _BITSHUFFLE:
            # Version 0.5 of the filter, the default block, LZ4 (2).
            return [(self.number, (0, 5, item_size, 0, 2))]
        values = () if self.levels is None else (self.level,)
        shuffle: list[Filter] = [(_SHUFFLE, (item_size,))] if item_size > 1 else []
        return [*shuffle, (self.number, values)]


_CODECS = {
    codec.name: codec
    for codec in (
        Codec("zstd", _ZSTD, (1, 22), 3),
        Codec("bitshuffle", _BITSHUFFLE, shuffles=True),
        Codec("lz4", _LZ4),
        Codec("gzip", _GZIP, (1, 9), 4),
        Codec("lzf", _LZF),
    )
}


def find_codec(name: str) -> Codec:
    """Return the codec of a name.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> find_codec("lz4").number
    32004
    """
    if name not in _CODECS:
        raise ValueError(f"codec is {name!r}; expected one of {', '.join(map(repr, _CODECS))}")
    return _CODECS[name]
