"""The order of rows in an epoch, cut into windows and batches: numbers only, equal on every machine for equal seeds.

Nothing here reads files, makes tensors, or uses names.
"""
