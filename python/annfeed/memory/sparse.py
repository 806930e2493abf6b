"""CSR and CSC tensors of parts that are known to be valid.

torch's ``check_invariants=`` sets a flag of the whole process for a moment and puts back what it found there. Batches
are made in threads: the flag of somebody else's moment would be put back, and stay for the process.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

_LAYOUTS = {"csr": torch.sparse_csr, "csc": torch.sparse_csc}
#: torch's own way around its check.
_make: Any = torch.ops.aten._sparse_compressed_tensor_unsafe.default


def compressed(
    pointers: torch.Tensor,
    indices: torch.Tensor,
    values: torch.Tensor,
    size: tuple[int, ...] | torch.Size,
    layout: Literal["csr", "csc"] = "csr",
) -> torch.Tensor:
    """Return a sparse tensor of its parts, which torch does not look through.

    ``pointers`` are int32 or int64 ``[rows + 1]`` (of CSC ``[columns + 1]``), ``indices`` of the same dtype: within a
    row (column) sorted, and none twice.

    Examples
    --------
    >>> compressed(torch.tensor([0, 1, 2]), torch.tensor([1, 0]), torch.tensor([5.0, 6.0]), (2, 2)).to_dense()
    tensor([[0., 5.],
            [6., 0.]])
    """
    made: torch.Tensor = _make(
        pointers, indices, values, list(size), dtype=values.dtype, layout=_LAYOUTS[layout], device=values.device
    )
    return made
