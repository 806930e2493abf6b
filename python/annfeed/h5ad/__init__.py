"""Facts of one .h5ad file or AnnData: its elements, whether it is still the same; who may read, write and keep it open.

Rows of matrices are read in sources/, columns of obs in obs/.
"""
