"""Rows of a matrix, decoded: from a file (by the core, else by h5py), from memory, and of several as one.

Nothing here makes tensors or knows of obs.
"""
