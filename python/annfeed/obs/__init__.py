"""The obs of one file, AnnData or DataFrame, or of several: columns are read, converted and looked up by row.

Which rows come when is decided in order/; matrices are read in sources/.
"""
