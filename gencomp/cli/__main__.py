"""``python -m gencomp.cli``: the command line, for use where the script is not on the path."""

import sys

from gencomp.cli import main

sys.exit(main())
