"""Makes kitchen_data and robomimic_data importable here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
