"""CSR and CSC tensors of parts that are known to be valid.

torch's ``check_invariants=`` sets a flag of the whole process for a moment and puts back what it found there. Batches
are made in threads: the flag of somebody else's moment would be put back, and stay for the process.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any, Literal

import torch

_LAYOUTS = {"csr": torch.sparse_csr, "csc": torch.sparse_csc}
#: torch's own way around its check.
_make: Any = torch.ops.aten._sparse_compressed_tensor_unsafe.default
_quiet = False


def quieten() -> None:
    """Have torch say now, to nobody, that CSR tensors are in beta, which it says once in a process.

    To leave a warning out, Python replaces the filters of the process for a moment. That is for a thread of the user:
    the threads that make batches would bring back what another thread has replaced meanwhile.

    Examples
    --------
    >>> quieten()
    """
    global _quiet
    if _quiet:
        return
    _quiet = True
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        compressed(torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0), (0, 0))


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
    if not _quiet and threading.current_thread() is threading.main_thread():
        quieten()
    made: torch.Tensor = _make(
        pointers, indices, values, list(size), dtype=values.dtype, layout=_LAYOUTS[layout], device=values.device
    )
    return made
