"""`densify`: CSR batches become dense on the device, so that fewer bytes are copied to it."""

from __future__ import annotations

from typing import Any

import torch

#: Types of devices to which torch moves CSR tensors.
TAKE_CSR = ("cpu", "cuda", "xpu")


def densify(batch: Any, device: torch.device | str | None = None, *, non_blocking: bool = False) -> Any:
    """Return a batch with its sparse CSR tensors dense, and all tensors on ``device``.

    Parameters
    ----------
    batch
        A batch (dict) of a loader with ``output="csr"``, or one tensor ``[B, n_vars]``. Other values stay as they are.
    device
        Target device; None leaves each tensor where it is. A sparse tensor is moved first and made dense there, unless
        the device takes no CSR tensors (Apple's "mps").
    non_blocking
        As in ``torch.Tensor.to``: do not wait for copies from pinned memory.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> from annfeed import AnnDataset
    >>> dataset = AnnDataset(anndata.AnnData(np.eye(3, dtype="float32")), output="csr")
    >>> batch = next(iter(dataset.get_optimized_dataloader(2, shuffle=False)))
    >>> densify(batch)["X"]
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    if isinstance(batch, dict):
        return {key: densify(value, device, non_blocking=non_blocking) for key, value in batch.items()}
    if not isinstance(batch, torch.Tensor):
        return batch
    if device is not None:
        if batch.layout is torch.sparse_csr and torch.device(device).type not in TAKE_CSR:
            batch = batch.to_dense()
        batch = batch.to(device, non_blocking=non_blocking)
    return batch.to_dense() if batch.layout is torch.sparse_csr else batch
