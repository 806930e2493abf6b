"""How matrices are stored in files, how much each order decodes, and recommended settings.

`found` has what is found and said of it, `describe` finds it, `costs` computes what orders decode.
"""

from annfeed.inspection.describe import Inspection, ManyInspections, inspect_file, inspect_files

__all__ = ["Inspection", "ManyInspections", "inspect_file", "inspect_files"]
