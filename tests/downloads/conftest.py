"""Makes kitchen_data and robomimic_data of the data sets' tests importable here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "dataset"))
