"""Results on their way back: into obs and obsm of files and AnnData objects.

Nothing here trains or predicts.
"""
