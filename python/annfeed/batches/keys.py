"""The keys of a batch: matrices, obs columns, the index, the marks of padding and of sets."""

from __future__ import annotations

from collections.abc import Collection, Iterable

#: Rows of the file or AnnData, int64 [B], with ``return_index=True``.
INDEX = "index"
#: Whether each row is a repeat, torch.bool [B]; in every batch of several ranks, and in no other.
IS_PADDING = "is_padding"
#: The set of each cell in its batch, int64 [B], and whether another set of the epoch has the cell unmarked, bool [B];
#: in batches of sets.
SET, IS_REPEAT = "set", "is_repeat"
#: The beginning of the keys of controls.
CONTROL = "control_"
#: What is told of the marks in batches of sets.
_SET_MARKS = {SET: "the set of each cell", IS_REPEAT: "which cells are repeats", IS_PADDING: "which sets are repeats"}
#: The number in `AnnDataset.stats` of controls from fallback pools.
FALLBACK = "fallback_controls"


def check_set_keys(matrices: Iterable[str], has_controls: bool) -> None:
    """Raise ValueError if a matrix has a key that batches of sets need for a mark, or for controls.

    Examples
    --------
    >>> check_set_keys(["X", "control_counts"], has_controls=False)
    """
    for key in matrices:
        if (owner := _owner_in_sets(key, has_controls)) is not None:
            raise ValueError(
                f"a matrix has the key {key!r}, under which batches of sets hold {owner}; expected another key. "
                "Give it one in elem="
            )


def check_returned(keys: Iterable[str], has_controls: bool) -> None:
    """Raise ValueError if a transform returned a key under which a batch of sets gets a mark, or controls.

    Examples
    --------
    >>> check_returned(["X", "control_counts"], has_controls=False)
    """
    for key in keys:
        if (owner := _owner_in_sets(key, has_controls)) is not None:
            raise ValueError(
                f"the transform returned the key {key!r}, under which batches of sets hold {owner}; expected another "
                "key. Let it return its value under another"
            )


def _owner_in_sets(key: str, has_controls: bool) -> str | None:
    """What batches of sets hold under a key, in words."""
    if has_controls and key.startswith(CONTROL):
        return f"controls, as under all keys that begin with {CONTROL!r}"
    return _SET_MARKS.get(key)


def measured_key(key: str) -> str:
    """Return the key of which rows a matrix in a modality of a MuData has, torch.bool [B].

    Examples
    --------
    >>> measured_key("rna")
    'rna_measured'
    """
    return f"{key}_measured"


def check_keys(matrices: Collection[str], obs: Collection[str], in_modalities: Iterable[str] = ()) -> None:
    """Raise ValueError if a key of ``elem=`` is also the key of an obs column, of the index or of a mark.

    ``in_modalities`` are the keys of matrices that have the mark of `measured_key`.

    Examples
    --------
    >>> check_keys(["X", "counts"], ["obs_n"])
    """
    for key in matrices:
        owner = {INDEX: "the rows' numbers", IS_PADDING: "the mark of repeated rows"}.get(key)
        if owner is None and key in obs:
            owner = f"the obs column {key.removeprefix('obs_')!r}"
        if owner is not None:
            raise ValueError(
                f"a matrix has the key {key!r}, under which batches hold {owner}; give it another key in elem="
                + (", or leave the column out of obs_columns" if key in obs else "")
            )
    for key in in_modalities:
        mark = measured_key(key)
        if mark in matrices or mark in obs:
            other = "another matrix" if mark in matrices else f"the obs column {mark.removeprefix('obs_')!r}"
            raise ValueError(
                f"a matrix has the key {key!r}, and under {mark!r} batches hold both which cells were measured and "
                f"{other}; expected different keys. Give the matrix another key in elem="
            )
