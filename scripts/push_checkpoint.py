"""`bac checkpoint push`, with the same arguments."""

import sys

from door import open_door

if __name__ == "__main__":
    sys.exit(open_door("push_checkpoint"))
