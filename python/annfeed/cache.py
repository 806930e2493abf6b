"""Names of memory/budget.py, kept here because version 0.1 had them here."""

from annfeed.memory.budget import SharedBudget, cache_budget, free_memory, process_budget

__all__ = ["SharedBudget", "cache_budget", "free_memory", "process_budget"]
