"""What the numbers of a check mean, in words, and which stated limits they break."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bac_workbench.checking.measure import FULL, OTHER_NOISE, Measured
from bac_workbench.checking.numbers import missed
from bac_workbench.timing.latency import speed_ratio
from diffusion_policy.common.config import ConfigError

#: relative energy distances up to which settings lost at most 0.03 of their score, and from which they lost much, of 23
#: settings on Push-T and Kitchen
CLOSE, FAR = 0.1, 0.5
#: error over spread of a dimension that an independent draw of the full policy has, 1, with room for chance
REDRAWN = 1.25


@dataclass(frozen=True)
class Limit:
    """One stated limit.

    Attributes:
        name: of the setting below `limits`.
        value: what was found; `allowed` is the limit. Of the dimension where it is broken most, or nearest to it.
        dimension: that dimension, None where the limit has none.
    """

    name: str
    value: float
    allowed: float
    dimension: int | None = None

    @property
    def broken(self) -> bool:
        return not self.value <= self.allowed

    def __str__(self) -> str:
        where = "" if self.dimension is None else f" of action {self.dimension}"
        state = "exceeded" if self.broken else "kept"
        return f"limits.{self.name}={self.allowed:g} is {state}: {self.value:.4g}{where}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "allowed": self.allowed,
            "dimension": self.dimension,
            "broken": self.broken,
        }


def check_bounds(limits: Any, action_dim: int) -> None:
    """Raises ConfigError for a list of limits that has not one for each dimension of the action."""
    for name in ("error", "bias"):
        given = getattr(limits, name)
        if isinstance(given, list) and len(given) != action_dim:
            raise ConfigError(
                f"limits.{name} has {len(given)} numbers, and the action has {action_dim} dimensions: give one for "
                "each, or one number for all"
            )


def limits_of(measured: Measured) -> list[Limit]:
    """Every stated limit beside what was found."""
    settings = measured.subject.experiment.settings
    stated, found, name = settings.limits, measured.differences, measured.subject.name
    screen, times = measured.screens[name], measured.latencies[name].milliseconds
    judged = []
    for bound, values in (("error", found.errors), ("bias", np.abs(found.bias))):
        if (given := getattr(stated, bound)) is not None:
            allowed = np.broadcast_to(np.asarray(given, float), values.shape)
            worst = int((values / allowed).argmax())
            judged.append(Limit(bound, float(values[worst]), float(allowed[worst]), worst))
    if stated.error_ratio is not None:
        judged.append(Limit("error_ratio", float(found.ratios[found.worst]), stated.error_ratio, found.worst))
    if stated.energy is not None:
        judged.append(Limit("energy", screen.relative_energy.value, stated.energy))
    if stated.jitter is not None:
        judged.append(Limit("jitter", screen.jitter_ratio.value, stated.jitter))
    if stated.p99_ms is not None:
        judged.append(Limit("p99_ms", float(np.percentile(times, 99)), stated.p99_ms))
    if stated.missed is not None:
        judged.append(Limit("missed", missed(times, settings.deadline_ms), stated.missed))
    return judged


def level(measured: Measured) -> str:
    """`same`, `close`, `unclear` or `far`.

    The relative energy distance decides, which looks at all dimensions together; a single one that is off by more than
    another draw of the full policy would be is not `close`, either.
    """
    energy = measured.screens[measured.subject.name].relative_energy.value
    found = measured.differences
    if not found.error.any():
        return "same"
    if energy >= FAR:
        return "far"
    return "close" if energy < CLOSE and found.ratios[found.worst] <= REDRAWN else "unclear"


def sentences(measured: Measured, limits: list[Limit]) -> list[str]:
    """The verdict, the most important thing first."""
    name, settings = measured.subject.name, measured.subject.experiment.settings
    screen, found = measured.screens[name], measured.differences
    energy, own = screen.relative_energy, measured.screens[OTHER_NOISE].relative_energy
    opening = {
        "same": f"{name} gives the actions of the full policy, number for number.",
        "close": f"{name} acts like the full policy, as far as held-out observations can tell.",
        "unclear": f"{name} differs from the full policy by more than noise does; whether that matters is open.",
        "far": f"{name} does not act like the full policy. Do not use it.",
    }[level(measured)]
    lines = [opening]
    broken = [limit for limit in limits if limit.broken]
    if broken:
        lines.append(f"{len(broken)} of {len(limits)} stated limits are exceeded: {', '.join(map(str, broken))}.")
    elif limits:
        lines.append(f"All {len(limits)} stated limits are kept.")
    else:
        lines.append("No limits were stated, so none is exceeded.")
    lines.append(
        f"Relative energy distance {energy.value:.3f} [{energy.low:.3f}, {energy.high:.3f}]; two draws of the full "
        f"policy: {own.value:.3f}. Below {CLOSE:g} settings lost at most 0.03 of their score on Push-T and Kitchen, "
        f"above {FAR:g} at least 0.19."
    )
    worst = found.worst
    lines.append(
        f"Under the same noise an action is off by at most {found.ratios[worst]:.2g} times what another noise seed "
        f"changes (action {worst}: {found.errors[worst]:.3g} against {found.spreads[worst]:.3g} in its units)."
    )
    biased = [
        f"{index} ({found.bias[index]:+.3g})"
        for index in range(len(found.bias))
        if not found.bias_low[index] <= 0 <= found.bias_high[index]
    ]
    if biased:
        lines.append(f"Biased, by its 95 % interval, in action {', '.join(biased)}.")
    lines.append(timing_sentence(measured))
    if measured.ddim is not None:
        other = measured.screens[measured.ddim].relative_energy.value
        nearer = "nearer to" if other < energy.value else "farther from"
        lines.append(
            f"{measured.ddim}, which takes about as long ({measured.latencies[measured.ddim].p50:.3g} ms), is {nearer} "
            f"the full policy: {other:.3f}."
        )
    lines.append(
        f"Judged on {measured.n_states} of {measured.available} held-out observations, {settings.n_samples} chunks "
        "each. This is a screen and no proof: only episodes on the robot say whether the policy succeeds as often."
    )
    return lines


def timing_sentence(measured: Measured) -> str:
    name, settings = measured.subject.name, measured.subject.experiment.settings
    latency, full = measured.latencies[name], measured.latencies[FULL]
    encoder = np.median(latency.encoder_milliseconds)
    text = (
        f"A call takes {latency.p50:.3g} ms (p99 {latency.percentile(99):.3g}), {encoder:.3g} of it to encode the "
        f"observation: {speed_ratio(full, latency):.2f} times as fast as the full policy in runtime={settings.runtime}"
    )
    if settings.deadline_ms is None:
        return f"{text}."
    share = missed(latency.milliseconds, settings.deadline_ms)
    return f"{text}; {share:.1%} of {len(latency.milliseconds)} calls miss the deadline of {settings.deadline_ms:g} ms."
