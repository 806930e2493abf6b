"""Facts of one .h5ad file, by h5py: what it is, where its elements lie, whether it is still the same.

Rows of matrices are read in sources, columns of obs in obs.
"""
