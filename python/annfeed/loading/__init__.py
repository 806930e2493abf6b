"""The loader: samplers, reading ahead, worker processes, saved states, and trainers of other libraries.

The order of rows is computed in order/.
"""
