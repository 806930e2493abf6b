"""How matrices are stored in files, how much each order decodes, and recommended settings.

`found` has what is found and said of it, `describe` finds it, `costs` computes what orders decode.
"""

from annfeed.inspection.describe import inspect_file, inspect_files
from annfeed.inspection.found import Inspection, ManyInspections

__all__ = ["Inspection", "ManyInspections", "inspect_file", "inspect_files"]
