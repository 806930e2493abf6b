"""Writes an .h5ad file again, in a codec and a chunk length that are read faster: `annfeed.rewrite`.

Matrices over cells are decoded and compressed by the core; all else is copied by HDF5.
"""
