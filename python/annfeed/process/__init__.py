"""The process among others: its rank, its threads, what its container allows, and how it starts another.

Nothing here knows of rows or files of cells.
"""
