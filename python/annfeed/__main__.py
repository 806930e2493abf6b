"""``python -m annfeed``: the command line."""

import sys

from annfeed.cli import main

sys.exit(main())
