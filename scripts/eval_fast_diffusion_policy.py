"""The released project's evaluation, with its flags: --checkpoint, --output_dir, --cache_mode, ..."""

import sys

from door import open_released

if __name__ == "__main__":
    sys.exit(open_released("eval_command"))
