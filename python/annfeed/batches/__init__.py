"""Decoded rows become batches: dense or CSR tensors, obs, transforms, items and back.

Which rows, and when, is decided in loading.
"""
