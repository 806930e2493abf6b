"""Columns beside the matrix: of one file or object, and of several joined.

Which rows are asked for is decided elsewhere.
"""
