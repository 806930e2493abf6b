"""The keys of a batch, each of one owner: matrices, obs columns, the index, the mark of padding."""

from __future__ import annotations

from collections.abc import Collection, Iterable

#: The row that each row of a batch is, with ``return_index=True``.
INDEX = "index"
#: The mark of padding: torch.bool [B]. It is in every batch of several ranks, and in no other.
IS_PADDING = "is_padding"


def check_keys(matrices: Iterable[str], obs: Collection[str]) -> None:
    """Raise where a matrix has a key that is something else's.

    Parameters
    ----------
    matrices
        Keys of ``elem=``.
    obs
        Keys of the obs columns that are delivered.

    Raises
    ------
    ValueError
        If one would be lost.

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
