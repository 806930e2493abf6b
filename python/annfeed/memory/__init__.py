"""Where bytes live: the budget of the row cache, memory for batches that goes round, and batches between processes.

Nothing here knows what the bytes are.
"""
