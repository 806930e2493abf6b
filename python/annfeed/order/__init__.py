"""Which rows come, in which order, cut into which batches: numbers only, the same for the same seed on every machine.

Nothing here reads a file, makes a tensor, or knows of names of cells.
"""
