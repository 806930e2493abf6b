"""What is done to a batch: the public transforms, and which of them the core does while it makes a batch.

Nothing here reads.
"""

from annfeed.transforms.base import Compose, Transform
from annfeed.transforms.counts import Log1p, NormalizeTotal, Scale

__all__ = ["Compose", "Log1p", "NormalizeTotal", "Scale", "Transform"]
