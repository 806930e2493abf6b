"""An obs column as codes, for what goes by its labels: splits and balanced orders.

Codes here are numbered by first appearance and mean nothing outside; those that batches carry are obs_columns.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd


def label_codes(column: pd.Series[Any], needed_by: str | None = None) -> tuple[npt.NDArray[Any], list[Any]]:
    """Return the code of each row and the label of each code.

    Parameters
    ----------
    column
        [n_rows], of any dtype.
    needed_by
        The option that needs a label in each row; None where rows without one may have code -1.

    Returns
    -------
    codes, labels
        Signed integers [n_rows], as narrow as they fit, and the labels in order of appearance.

    Raises
    ------
    ValueError
        If a row has no label and ``needed_by`` is given.

    Examples
    --------
    >>> import pandas as pd
    >>> label_codes(pd.Series(["b", None, "a", "b"]))
    (array([ 0, -1,  1,  0], dtype=int8), ['b', 'a'])
    """
    codes, labels = column.factorize()
    n_missing = int(np.count_nonzero(codes < 0))
    if needed_by is not None and n_missing:
        raise ValueError(
            f"{needed_by}={column.name!r}: {n_missing} of {len(codes)} rows have no value there, and none is made up. "
            "Leave them out with obs_subset=, or fill them in"
        )
    return codes.astype(np.min_scalar_type(-max(1, len(labels)))), list(labels)
