"""From what users pass (paths, lists, AnnData, masks, names) to sources and obs, all checked.

Nothing here reads rows.
"""
