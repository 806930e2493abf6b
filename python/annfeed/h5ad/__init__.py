"""Facts of one .h5ad file or AnnData: what it is, where its elements are, whether it is still the same.

Rows of matrices are read in sources/, columns of obs in obs/.
"""
