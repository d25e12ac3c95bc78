"""Which tokens of a trajectory reach the actions that are executed; the others need not be denoised.

Under a causal self-attention mask no token sees a later one, cross-attention and feed-forward networks treat every
token by itself, and so does the solver. The tokens behind the executed chunk therefore never influence it: leaving them
out gives the same actions for less arithmetic, whatever the sampler and the schedule. Noise is still drawn for the
whole trajectory, so seeds keep their meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bac.denoiser import model_blocks
from bac.errors import Unavailable
from bac.known_modules import foreign_part
from bac.loop import DenoisingLoop
from bac.scheduler_kinds import kind_of

#: executed: the tokens up to the end of the executed chunk, where that is exact; full: all T of them
HORIZONS = ("executed", "full")


def executed_tokens(policy: Any) -> int | None:
    """Number of leading tokens that decide the executed actions, `policy.chunk.stop`; None where all T are needed."""
    return None if why_all_tokens(policy) is not None else int(policy.chunk.stop)


def why_all_tokens(policy: Any) -> str | None:
    """Why all tokens of this policy have to be denoised, in words; None where the executed ones suffice."""
    loop = loop_of(policy)
    model_blocks(loop.model)  # refuses what is no denoiser
    stop = getattr(getattr(policy, "chunk", None), "stop", None)
    if not isinstance(stop, int):
        return "the policy does not say where the executed chunk lies (it has no `chunk`)"
    if stop >= trajectory_tokens(policy):
        return "the executed chunk reaches to the last one"
    if not loop.model.obs_as_cond:
        return "the policy conditions by inpainting, not by tokens"
    return why_dependent(loop, stop)


@dataclass(frozen=True)
class Tokens:
    """Which tokens of a policy's trajectories are denoised.

    Attributes:
        kept: how many of the first, as runtimes take it; None: all.
        total: T, those of a whole trajectory.
        why_all: in words, where all are; else None.
    """

    kept: int | None
    total: int
    why_all: str | None

    @property
    def denoised(self) -> int:
        return self.total if self.kept is None else self.kept

    def __str__(self) -> str:
        return (
            f"{self.denoised} of {self.total} tokens: {self.why_all or 'the others never reach the executed actions'}"
        )


def choose_tokens(policy: Any, horizon: str) -> Tokens:
    """The tokens that are denoised for `horizon`, one of `HORIZONS`.

    Raises:
        Unavailable: it is none of them.
    """
    if horizon not in HORIZONS:
        raise Unavailable(
            f"unknown horizon {horizon!r}: use 'executed' (what reaches the executed actions) or 'full' (all tokens)"
        )
    total = trajectory_tokens(policy)
    reason = why_all_tokens(policy) if horizon == "executed" else f"horizon={horizon}"
    return Tokens(None if reason is not None else int(policy.chunk.stop), total, reason)


def trajectory_tokens(policy: Any) -> int:
    """T, the tokens of the policy's trajectory."""
    shape = getattr(policy, "trajectory_shape", None)
    return int(loop_of(policy).model.horizon if shape is None else shape[0])


def loop_of(policy: Any) -> DenoisingLoop:
    """The policy's own denoising loop, also while it is accelerated."""
    return getattr(policy.sampler, "base", policy.sampler)


def why_dependent(loop: DenoisingLoop, tokens: int) -> str | None:
    """What lets the first `tokens` tokens depend on the others, in words; None: nothing does.

    The model's own mask is looked at, not how it was configured.
    """
    model = loop.model
    if model.encoder_only:
        return "the denoiser is of the encoder-only form"
    if tokens >= model.horizon:
        return None
    if model.mask is None:
        return "the self-attention is not causal"
    if not bool((model.mask[:tokens, tokens:] == float("-inf")).all()):
        return f"the self-attention mask lets the first {tokens} tokens see later ones"
    if (foreign := foreign_part(model)) is not None:  # such as a layer that scales all tokens by their largest number
        return f"{foreign}, which may let tokens depend on each other"
    if kind_of(loop.scheduler) is None:
        return f"a {type(loop.scheduler).__name__} is not known to treat every token by itself"
    if loop.scheduler.config.get("thresholding", False):
        return "thresholding=True scales all tokens together"
    return None


def check_tokens(loop: DenoisingLoop, tokens: int | None) -> None:
    """Refuses to leave out tokens that the kept ones depend on.

    Raises:
        Unavailable: naming the reason.
    """
    if tokens is None:
        return
    horizon = loop.model.horizon
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 1 <= tokens <= horizon:
        raise Unavailable(f"tokens={tokens!r} is not possible: use 1 to {horizon}, or None for all of them")
    reason = None if tokens == horizon else why_dependent(loop, tokens)
    if reason is not None:
        raise Unavailable(f"the first {tokens} tokens cannot be denoised alone: {reason}; use tokens=None for all")
