"""Spacing rules: which timesteps a sampler of k steps evaluates the denoiser at.

Timesteps descend strictly within 0 .. T - 1, T being the number of timesteps in training. Where few are taken, the
rule decides the quality. A first timestep of T - 1, as `trailing` and `linspace` have it, is the worst choice: nearly
all is noise there, and an error of the denoiser is divided by the little signal that is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bac.errors import UserError

#: kinds of solver that take any grid
KINDS = ("ancestral", "ddim", "dpmpp")
#: below this number of steps DDIM takes a grid of this project, from it on that of diffusers
FEWEST_OF_DIFFUSERS = 10
#: from this number of steps on the exponent is 1.5: more quadratic steps crowd where little noise is left
FEWEST_OF_THREE_HALVES = 7


class ImpossibleGrid(UserError, ValueError):
    """A spacing rule that is not known, or cannot give so many distinct timesteps; or timesteps that are no grid."""


def _power(exponent: float, low: float, high: float, steps: int, trained: int) -> np.ndarray:
    """round(lo + (hi - lo) u^exponent), u from 1 to 0, where lo = `low` T and hi = `high` T; for one step .58 T."""
    if steps == 1:
        values = np.array([0.58 * trained])
    else:
        u = 1 - np.arange(steps) / (steps - 1)
        values = (low + (high - low) * u**exponent) * trained
    return np.clip(_rounded(values), 0, trained - 1)


def _rounded(values: np.ndarray) -> np.ndarray:
    """Halves up; what floating point puts just below a half counts as one."""
    return np.floor(np.round(values, 9) + 0.5)


def quadratic(steps: int, trained: int) -> np.ndarray:
    return _power(2.0, 0.04, 0.92, steps, trained)


def three_halves(steps: int, trained: int) -> np.ndarray:
    return _power(1.5, 0.03, 0.94, steps, trained)


def even(steps: int, trained: int) -> np.ndarray:
    """Midpoints of `steps` equal parts; all timesteps where steps = T."""
    return _rounded((np.arange(steps)[::-1] + 0.5) * trained / steps - 0.5)


def leading(steps: int, trained: int, offset: int = 0) -> np.ndarray:
    """That of diffusers' DDPM and DDIM: multiples of T // steps, moved by `offset`."""
    return np.arange(steps)[::-1] * (trained // steps) + offset


def linspace(steps: int, trained: int) -> np.ndarray:
    """That of diffusers' DDPM and DDIM: evenly from 0 to T - 1, both included."""
    return np.linspace(0, trained - 1, steps).round()[::-1]


def trailing(steps: int, trained: int) -> np.ndarray:
    """That of diffusers' DDPM and DDIM: evenly from T - 1 down, 0 excluded unless steps = T."""
    width = (trained - trained / steps) - trained  # rounded as in np.arange(T, 0, -T / steps), which diffusers calls
    return np.round(trained + np.arange(steps) * width) - 1


RULES: dict[str, Callable[[int, int], np.ndarray]] = {
    "quadratic": quadratic,
    "three_halves": three_halves,
    "even": even,
    "leading": leading,
    "linspace": linspace,
    "trailing": trailing,
}
SPACINGS = tuple(RULES)
#: those that diffusers has for DDPM and DDIM
OF_DIFFUSERS = ("leading", "linspace", "trailing")


def default_spacing(kind: str, steps: int, trained: int) -> str:
    """The rule of a sampler that names none.

    Ancestral samplers at any number of steps and DDIM below 10 take `quadratic` up to 6 steps and `three_halves` from 7
    on, or `even` where `three_halves` would repeat a timestep. All else takes `leading`, as diffusers does.
    """
    if kind != "ancestral" and not (kind == "ddim" and steps < FEWEST_OF_DIFFUSERS):
        return "leading"
    name = "quadratic" if steps < FEWEST_OF_THREE_HALVES else "three_halves"
    return name if _descends(RULES[name](steps, trained)) else "even"


def timesteps_of(spacing: str, steps: int, trained: int) -> tuple[int, ...]:
    """The grid of a rule.

    Args:
        steps: k, 1 to T.
        trained: T, the number of timesteps in training.

    Raises:
        ImpossibleGrid: there is no such rule, or it cannot give k distinct timesteps; the message says which can.
    """
    if spacing not in RULES:
        raise ImpossibleGrid(f"spacing={spacing} is unknown: use {', '.join(SPACINGS)}")
    if not 1 <= steps <= trained:
        raise ImpossibleGrid(f"{steps} steps are not possible: use 1 to {trained}, the number it was trained with")
    grid = RULES[spacing](steps, trained)
    if not _descends(grid):
        most = max(k for k in range(1, steps) if _descends(RULES[spacing](k, trained)))
        raise ImpossibleGrid(
            f"spacing={spacing} has no {steps} distinct timesteps among {trained}: use {most} steps at most, "
            "or spacing=even, which gives any number"
        )
    return tuple(int(t) for t in grid)


def spacing_of(timesteps: Sequence[int], kind: str, trained: int) -> str | None:
    """The rule whose grid these timesteps are, the default one of `kind` before all others; None: of none.

    diffusers' DPM-Solver++ spaces otherwise than its DDIM, so there the rules of diffusers are not looked at.
    """
    given, steps = tuple(timesteps), len(timesteps)
    names = [name for name in SPACINGS if kind != "dpmpp" or name not in OF_DIFFUSERS]
    first = default_spacing(kind, steps, trained)
    for name in sorted(names, key=lambda name: name != first):
        if np.array_equal(RULES[name](steps, trained), given):
            return name
    return None


def check_grid(timesteps: Sequence[int], trained: int) -> None:
    """Raises:
    ImpossibleGrid: the timesteps do not descend strictly within 0 .. T - 1, or there are none.
    """
    given = list(timesteps)
    if not given or any(type(t) is not int for t in given):
        raise ImpossibleGrid(f"timesteps={given} is no grid: give whole numbers, such as [92,54,28,9,4]")
    if not _descends(np.array(given)):
        raise ImpossibleGrid(f"timesteps={given} do not descend: each one has to be smaller than the one before it")
    if given[0] >= trained or given[-1] < 0:
        raise ImpossibleGrid(f"timesteps={given} leave the range of training: use 0 to {trained - 1}")


def _descends(grid: np.ndarray) -> bool:
    return bool((np.diff(grid) < 0).all())
