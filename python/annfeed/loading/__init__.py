"""The loop: samplers, the loader, reading ahead, worker processes, saved states, and trainers of others.

The order itself is made in order.
"""
