"""``python -m gencomp.cli``: the same command line where the console script is not on the path."""

import sys

from gencomp.cli import main

sys.exit(main())
