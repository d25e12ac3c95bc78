"""The released project's collection of data, with its flags: --checkpoint, --output_dir, --num_episodes, ..."""

import sys

from door import open_released

if __name__ == "__main__":
    sys.exit(open_released("collect_command"))
