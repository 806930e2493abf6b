"""The names of memory/budget.py where 0.1 had them, for programs that measure the cache."""

from annfeed.memory.budget import SharedBudget, cache_budget, free_memory, process_budget

__all__ = ["SharedBudget", "cache_budget", "free_memory", "process_budget"]
