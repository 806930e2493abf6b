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
#: The number in `AnnDataset.stats` of controls from fallback pools.
FALLBACK = "fallback_controls"


def check_keys(matrices: Iterable[str], obs: Collection[str]) -> None:
    """Raise ValueError if a key of ``elem=`` is also the key of an obs column, of the index or of the mark of padding.

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
