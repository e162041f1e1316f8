"""``python -m relmem.cli`` is ``relmem``, wherever that is on no path."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
