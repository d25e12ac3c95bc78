"""The released project's command for schedules, with its flags: -c, -o, -d, --num_caches, --metrics, ...

A door and no part of this package: the command is `bac_workbench.released.steps_command`.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
    from door import open_released

    sys.exit(open_released("steps_command"))
