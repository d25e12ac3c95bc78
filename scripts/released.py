"""Starts a batch of the released project, which shs/ names first: steps_batch or benchmark_command."""

import sys

from door import open_released

if __name__ == "__main__":
    sys.exit(open_released(sys.argv.pop(1)))
