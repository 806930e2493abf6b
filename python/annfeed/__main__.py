"""``python -m annfeed``."""

import sys

from annfeed.cli import main

sys.exit(main())
