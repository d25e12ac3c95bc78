"""The certificate of a tuned policy: the setting that was chosen, and what was proven of it.

`bac tune` writes one, `tuned.json`, with the schedule beside it where the setting has one, and
`accelerate(policy, "tuned")` follows it. It belongs to the weights, the normaliser, the noise schedule and the length
of the executed chunk that it was proven with, and is refused for any other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bac import strict_json
from bac.errors import UserError
from bac.files import read_limited, write_atomic
from bac.loop import DenoisingLoop
from bac.sampler_name import loop_name, noise_digest
from bac.samplers.grid_loop import GridLoop, GridSettings
from bac.schedule import Schedule

FORMAT, VERSION = "bac-tuned", 1
FILE, SCHEDULE = "tuned.json", "tuned_schedule.json"
MAX_BYTES = 16 * 2**20
_ROOT = Path(__file__).resolve().parents[1]


class TunedError(UserError, ValueError):
    """A certificate that is damaged, missing, or of another policy."""


@dataclass(frozen=True)
class Claim:
    """What was proven: the mean score is not lower than the full policy's by more than `margin`.

    Attributes:
        alpha: chance of a false proof, one-sided, all looks and candidates together.
        level: one-sided level of the look that decided.
        n: pairs of episodes, each of one environment seed and one noise.
        difference, low, high: mean score minus the full policy's, with its 95 % interval.
        marks: what is worse beside the score, such as '15 % more steps to success'.
    """

    margin: float
    alpha: float
    level: float
    n: int
    difference: float
    low: float
    high: float
    p_value: float
    marks: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = (
            f"not worse than the full policy by more than {self.margin:g} in mean score (n = {self.n} paired episodes, "
            f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}] 95 %, one-sided p = {self.p_value:.2g})"
        )
        return text + "".join(f"; {mark}" for mark in self.marks)


@dataclass(frozen=True)
class Identity:
    """The policy that a certificate is of.

    Attributes:
        checkpoint_hash: of the weights, see `weights_hash`.
        normalizer_hash: of the normaliser's numbers; None for a policy without one.
        noise: digest of the noise schedule.
        sampler: the checkpoint's own, whose samples the setting was compared with.
        executed: first and last but one token of the executed chunk.
    """

    checkpoint_hash: str
    normalizer_hash: str | None
    noise: str
    sampler: str
    executed: tuple[int, int]

    @classmethod
    def of(cls, policy: Any, own: DenoisingLoop | None = None) -> Identity:
        """Of a policy as it is now.

        Args:
            own: the checkpoint's own denoising loop; None: the policy's present one.
        """
        own = policy.sampler if own is None else own
        return cls(
            policy.weights_hash(),
            normalizer_hash(policy),
            noise_digest(own.scheduler),
            loop_name(own, policy.noise_scheduler),
            (policy.chunk.start, policy.chunk.stop),
        )

    def differences(self, other: Identity) -> list[str]:
        """Where this is of another policy, in words."""
        names = {
            "checkpoint_hash": "weights",
            "normalizer_hash": "a normaliser",
            "noise": "a noise schedule",
            "sampler": "the own sampler",
            "executed": "an executed chunk",
        }
        return [
            f"{words} {_short(getattr(self, name))}, not {_short(getattr(other, name))}"
            for name, words in names.items()
            if getattr(self, name) != getattr(other, name)
        ]


@dataclass(frozen=True)
class Tuned:
    """A setting with its proof.

    Attributes:
        method: cache and sampler, such as full@ancestral5; 'full' where nothing faster was proven.
        sampler: None: the checkpoint's own.
        schedule: None: every block at every step.
        claim: None: the full policy itself, of which nothing has to be proven.
        details: how it was found: candidates, seeds, times, machine; JSON values.
    """

    method: str
    identity: Identity
    sampler: GridSettings | None
    schedule: Schedule | None
    runtime: str
    precision: str
    claim: Claim | None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method}: {self.claim or 'the full policy, as nothing faster was proven'}"

    def check(self, policy: Any, own: DenoisingLoop | None = None) -> None:
        """Raises:
        TunedError: it was proven for another policy.
        """
        if differs := self.identity.differences(Identity.of(policy, own)):
            raise TunedError(
                f"this certificate is not for this policy: it was proven for {'; '.join(differs)}. Tune this policy: "
                "bac tune task=... checkpoint=..."
            )

    def loop(self, own: DenoisingLoop) -> DenoisingLoop:
        """The denoising loop of the setting, on a checkpoint's own."""
        return own if self.sampler is None else GridLoop(own, self.sampler)

    # ---- files ----
    def save(self, path: str | Path) -> None:
        """Writes the certificate, and its schedule beside it. Each file appears complete or not at all."""
        path = Path(path)
        stored: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "method": self.method,
            "statement": str(self),
            "policy": dataclasses.asdict(self.identity),
            "sampler": None if self.sampler is None else self.sampler.to_dict(),
            "schedule_digest": None if self.schedule is None else self.schedule.digest,
            "runtime": self.runtime,
            "precision": self.precision,
            "claim": None if self.claim is None else dataclasses.asdict(self.claim),
            "details": dict(self.details),
        }
        if self.schedule is None:
            (path.parent / SCHEDULE).unlink(missing_ok=True)
        else:
            self.schedule.save(path.parent / SCHEDULE)
        write_atomic(path, (json.dumps(stored, indent=2, allow_nan=False) + "\n").encode("utf-8"))

    @classmethod
    def load(cls, path: str | Path) -> Tuned:
        """Reads a certificate.

        Raises:
            TunedError: it is damaged, or its schedule is not the one it names.
            FileNotFoundError: there is none.
        """
        path = Path(path)
        try:
            return cls._read(path)
        except FileNotFoundError as error:
            hint = "No certificate here; make one with bac tune task=..."
            raise FileNotFoundError(error.errno, hint, str(error.filename or path)) from error
        except (ValueError, TypeError, KeyError, AttributeError, UserError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else error
            raise TunedError(f"{path} is no certificate ({what}): restore it, or tune again") from error

    @classmethod
    def _read(cls, path: Path) -> Tuned:
        stored = strict_json.loads(read_limited(path, MAX_BYTES))
        if not isinstance(stored, dict) or (stored.get("format"), stored.get("version")) != (FORMAT, VERSION):
            raise TunedError(f"not {FORMAT} version {VERSION}")
        policy, claim = stored["policy"], stored["claim"]
        digest = stored["schedule_digest"]
        schedule = None if digest is None else Schedule.load(path.parent / SCHEDULE)
        if schedule is not None and schedule.digest != digest:
            raise TunedError(f"{SCHEDULE} beside it is another schedule than the one that was proven")
        return cls(
            method=_text(stored["method"]),
            identity=Identity(**{**policy, "executed": tuple(policy["executed"])}),
            sampler=None if stored["sampler"] is None else GridSettings.from_dict(stored["sampler"]),
            schedule=schedule,
            runtime=_text(stored["runtime"]),
            precision=_text(stored["precision"]),
            claim=None if claim is None else Claim(**{**_numbers(claim), "marks": tuple(claim["marks"])}),
            details=dict(stored["details"]),
        )

    @classmethod
    def find(cls, policy: Any) -> Tuned:
        """The certificate of this policy among assets/*/tuned.json, here and then where this project is.

        Raises:
            TunedError: there is none.
        """
        own, seen = Identity.of(policy), []
        for path in _certificates():
            tuned = cls.load(path)
            if tuned.identity == own:
                return tuned
            seen.append(f"{path} (weights {_short(tuned.identity.checkpoint_hash)})")
        others = f"; there are those of other policies: {', '.join(seen[:4])}" if seen else ""
        raise TunedError(
            f"no certificate in assets/*/{FILE} is for this policy, weights {_short(own.checkpoint_hash)}{others}. "
            "Make one with bac tune task=... checkpoint=..., or name one: Tuned.load(path)"
        )


def _certificates() -> Iterator[Path]:
    roots = dict.fromkeys(folder.resolve() for folder in (Path(), _ROOT))
    for root in roots:
        yield from sorted((root / "assets").glob(f"*/{FILE}"))


def normalizer_hash(policy: Any) -> str | None:
    """SHA-256 over the names, shapes and float32 values of a policy's normaliser; None where it has none."""
    normalizer = getattr(policy, "normalizer", None)
    if normalizer is None:
        return None
    digest = hashlib.sha256()
    for name, value in sorted(normalizer.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy())
    return digest.hexdigest()


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TunedError(f"{value!r} where a name should be")
    return value


def _numbers(claim: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in claim.items():
        if name != "marks" and (type(value) not in (int, float) or not math.isfinite(value)):
            raise TunedError(f"{name} is {value!r}, not a number")
    return dict(claim)
