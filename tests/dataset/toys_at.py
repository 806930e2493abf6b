"""Kinds of toys, rows to ask for, and one batch of them."""

import torch

from annfeed import AnnDataset

KINDS = ("csr", "csc", "dense")


#: Positions in no order, with repeats, the first and the last row among them.
ROWS = [17, 3, 39, 3, 0, 17, 17, 21]


def batch_at(dataset: AnnDataset, rows: list[int]) -> dict:
    """A batch through the public way: torch's DataLoader with our collate."""
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=[rows], collate_fn=dataset.get_collate_fn())
    [batch] = loader
    return batch
