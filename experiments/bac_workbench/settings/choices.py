"""The runtimes and horizons, named here so that a command line is checked before the code that computes is imported."""

from __future__ import annotations

RUNTIMES = ("reference", "planned", "compiled")
HORIZONS = ("executed", "full")
