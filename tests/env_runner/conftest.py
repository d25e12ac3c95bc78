"""Makes toy_env importable here and in worker processes, which are given the parent's sys.path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
