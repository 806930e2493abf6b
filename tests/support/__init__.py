"""What tests share.

Here live small AnnData objects (toys, atlas, scvi_toys), files of every layout (h5ad_files, huge_files), scripts and
ranks in processes of their own (processes), and where things lie (places). What one room alone uses stays in that room.
"""
