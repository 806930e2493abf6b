"""The process: its rank, its threads, the limits of its container, and how it starts others.

Nothing here knows of datasets.
"""
