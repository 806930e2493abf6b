"""`AnnDataset`, what users make first: it opens what they pass, is a torch Dataset of its rows, and makes loaders.

Rows are read and batches made in the rooms below.
"""

from annfeed.dataset.anndataset import AnnDataset

__all__ = ["AnnDataset"]
