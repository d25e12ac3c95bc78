"""Values that settings choose from.

They are named here so that a command line is checked before the code that reads them is imported.
"""

from __future__ import annotations

CACHE_METHODS = ("full", "uniform", "unified_acs", "blockwise_acs", "bac")
RUNTIMES = ("reference", "planned", "compiled")
SAMPLER_TYPES = ("ddpm", "ddim", "dpmpp")
