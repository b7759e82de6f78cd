"""`python -m memlib.cli`, for use where the script `memlib` is not on the path."""

import sys

from memlib.cli import main

sys.exit(main())
