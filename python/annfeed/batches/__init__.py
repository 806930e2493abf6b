"""Decoded rows become batches: dense or CSR tensors, obs columns, transforms, items.

Loaders (loading/) choose the rows.
"""
