"""`python -m bac`."""

import sys

from bac.command import main

if __name__ == "__main__":
    sys.exit(main())
