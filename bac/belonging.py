"""Whether a schedule or a certificate is for a policy."""

from __future__ import annotations

from bac.loop import DenoisingLoop, Policy
from bac.sampler_name import loop_name
from bac.schedule import Schedule
from bac.tuned import Tuned


def certificate_of(policy: Policy, schedule: Schedule | Tuned | str | None) -> Tuned | None:
    """The certificate that `accelerate` was told to follow, if any.

    Raises:
        TunedError: it is for another policy, or there is none.
        ValueError: a word that is not 'tuned'.
    """
    if isinstance(schedule, str):
        if schedule != "tuned":
            raise ValueError(f"schedule={schedule!r} is not known: give a Schedule, a Tuned, 'tuned' or None")
        return Tuned.find(policy)
    if isinstance(schedule, Tuned):
        schedule.check(policy)
        return schedule
    return None


def foreign_to(schedule: Schedule, policy: Policy, own: DenoisingLoop) -> list[str]:
    """What a schedule was made for, in words, where that is other weights or another sampler than this policy's.

    Weights that were changed since are other weights. Schedules that need no profile, such as uniform ones, fit every
    policy.
    """
    made = schedule.provenance
    found = []
    if made.checkpoint_hash is not None:
        weights = policy.weights_hash()
        if weights != made.checkpoint_hash:
            found.append(f"the weights {made.checkpoint_hash[:12]}, which are not the policy's {weights[:12]}")
    if made.sampler is not None and made.sampler != name_of(own, policy):
        found.append(f"the sampler {made.sampler}, which is not the policy's {name_of(own, policy)}")
    return found


def name_of(own: DenoisingLoop, policy: Policy) -> str:
    return loop_name(own, policy.noise_scheduler)
