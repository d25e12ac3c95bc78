"""A policy of the original project as a `bac.loop.Policy`: what its methods do is left to them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from bac.denoiser import model_blocks
from bac.errors import NoDenoiser, Unavailable
from bac.loop import DenoisingLoop, Generators
from bac.original.denoiser import DenoiserFace
from bac.original.loop import OriginalInputs, OriginalLoop
from bac.runtime.reference import ReferenceSampler
from bac.runtime.snapshot import ModelSnapshot, SamplerSnapshot

#: parameters that were learned, of which the identity of the weights is made
_LEARNED = ("model.", "obs_encoder.")
_TOLERANCE = 1e-3  # of the largest number (at least 1): as in `bac.verification`
_GENERATOR: ContextVar[Generators] = ContextVar("generator", default=None)
#: what is set on a policy object while it is accelerated
_REPLACED = ("conditional_sample", "predict_action")


class AdoptedPolicy:
    """A face of an original policy, with a `sampler` that can be replaced.

    While another than its own is set, the policy object's `conditional_sample` and `predict_action` go through it:
    encoding, normalisation and the cut of the executed chunk are the policy's own code all the time. What is set on the
    policy in the meantime is an error at the next call, but for `n_action_steps`, which acts as ever.

    Attributes:
        original: the policy.

    Raises: see `bac.original.adopt`.
    """

    def __init__(self, original: Any):
        self.original = original
        replaced = next((name for name in _REPLACED if name in vars(original)), None)
        if isinstance(vars(original).get(replaced or ""), _Through):
            raise ValueError(
                f"this {type(original).__name__} is already accelerated: leave that block first, or call its detach()"
            )
        if replaced is not None:
            raise Unavailable(
                f"this {type(original).__name__} has a replaced method {replaced}(), which acceleration would bypass"
            )
        self.model = _face_of(original.model)
        self._own = OriginalLoop(original, self.model)
        self._sampler: Any = self._own
        self._settings, self._modules = SamplerSnapshot(self._own), ModelSnapshot(self.model)
        self._check_loop()

    # ---- what the package asks of a policy ----
    @property
    def sampler(self) -> Any:
        return self._sampler

    @sampler.setter
    def sampler(self, sampler: Any) -> None:
        self._sampler = sampler
        for name in _REPLACED:
            if isinstance(sampler, DenoisingLoop):
                vars(self.original).pop(name, None)
            else:
                vars(self.original)[name] = _Through(self, name)

    @property
    def noise_scheduler(self) -> Any:
        return self.original.noise_scheduler

    @property
    def normalizer(self) -> Any:
        return getattr(self.original, "normalizer", None)

    @property
    def obs_encoder(self) -> Any:
        return getattr(self.original, "obs_encoder", None)

    @property
    def n_action_steps(self) -> int:
        return self.original.n_action_steps

    @property
    def chunk(self) -> slice:
        start = 0 if self._chunk_only else self.original.n_obs_steps - 1
        return slice(start, start + self.n_action_steps)

    @property
    def _chunk_only(self) -> bool:
        return bool(getattr(self.original, "pred_action_steps_only", False))

    @property
    def trajectory_shape(self) -> tuple[int, int]:
        """(T, D) of the denoised trajectory."""
        tokens = self.n_action_steps if self._chunk_only else getattr(self.original, "horizon", self.model.horizon)
        return tokens, self.model.input_dim

    def weights_hash(self) -> str:
        """SHA-256 over names, shapes and float32 values of what was learned, sorted by name, each tensor once.

        That of `load_policy` for the same weights.
        """
        module = self.original
        if not isinstance(module, torch.nn.Module):
            module = torch.nn.ModuleDict({"model": module.model})
        first: dict[int, str] = {}
        for name, value in module.state_dict(keep_vars=True).items():
            first.setdefault(id(value), name)
        names, digest = set(first.values()), hashlib.sha256()
        for name, value in sorted(module.state_dict().items()):
            if name in names and name.startswith(_LEARNED):
                digest.update(f"{name} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy())
        return digest.hexdigest()

    def random_observation(self, batch: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Observations [B, To, Do] within the limits seen in training.

        Raises:
            Unavailable: the policy sees more than {'obs': ...}; give an observation of yours.
        """
        if self.obs_encoder is not None or not hasattr(self.original, "obs_dim"):
            raise Unavailable(f"no observation can be made up for a {type(self.original).__name__}: give one")
        stats = self.original.normalizer["obs"].get_input_stats()
        shape = batch, self.original.n_obs_steps, self.original.obs_dim
        uniform = torch.rand(shape, generator=generator).to(stats["min"])
        return {"obs": stats["min"] + uniform * (stats["max"] - stats["min"])}

    @torch.no_grad()
    def sampler_inputs(self, obs_dict: dict[str, Tensor]) -> OriginalInputs:
        """What the policy's own code makes of observations before it denoises."""
        caught: list[OriginalInputs] = []

        def catch(known: Tensor, mask: Tensor, cond: Tensor | None = None, **options: Any) -> Tensor:
            caught.append(_inputs(known, mask, cond))
            return torch.zeros_like(known)

        self._twin(conditional_sample=catch).predict_action(obs_dict)
        if len(caught) != 1:
            raise Unavailable(f"predict_action samples {len(caught)} trajectories, where one is expected")
        return caught[0]

    def _twin(self, **attributes: Any) -> Any:
        """The policy with its own methods and other attributes, for one call; the policy itself stays as it is."""
        twin = copy.copy(self.original)
        for name in _REPLACED:
            vars(twin).pop(name, None)
        vars(twin).update(attributes)
        return twin

    def predict_action(self, obs_dict: dict[str, Tensor], generator: Generators = None) -> dict[str, Tensor]:
        """As the policy's own, which knows no generator; accelerated it may be given one, or one per sample."""
        with _drawing_from(generator):
            return self.original.predict_action(obs_dict)

    # ---- while accelerated ----
    def sample(
        self, condition_data: Tensor, condition_mask: Tensor, cond: Tensor | None = None, **options: Any
    ) -> Tensor:
        """In place of the policy's `conditional_sample`, see there: [B, T, D], or its first tokens.

        Raises:
            RuntimeError: model, scheduler, steps or options are not what they were when it was accelerated.
        """
        generator = options.pop("generator", None)
        generator = _GENERATOR.get() if generator is None else generator
        if self.original.model is not getattr(self.model, "own", self.model):
            raise RuntimeError("the policy's model was replaced after it was accelerated: call accelerate() again")
        self._settings.check()
        if getattr(self._sampler, "name", None) == ReferenceSampler.name:  # the others look themselves
            self._modules.check()
        if options != dict(self._own.step_kwargs):
            raise Unavailable(f"conditional_sample got the options {sorted(options)}, not those in policy.kwargs")
        return self._sampler(_inputs(condition_data, condition_mask, cond), generator)

    @torch.no_grad()
    def act(self, obs_dict: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
        """In place of the policy's `predict_action`.

        Raises:
            RuntimeError: the executed chunk is longer than what is denoised, or lies elsewhere.
        """
        tokens, chunk = getattr(self._sampler, "tokens", None), self.chunk
        if tokens is not None and chunk.stop > tokens:
            raise RuntimeError(
                f"the executed chunk ends at token {chunk.stop} and {tokens} are denoised: n_action_steps was set "
                "after accelerate(), call accelerate() again"
            )
        result = type(self.original).predict_action(self.original, obs_dict, **options)
        if not torch.equal(result["action"], result["action_pred"][:, chunk]):
            raise RuntimeError(
                f"this {type(self.original).__name__} does not execute tokens {chunk.start} to {chunk.stop - 1} of its "
                "trajectory, as the original project does: no action of it is sure"
            )
        return result

    @torch.no_grad()
    def _check_loop(self) -> None:
        """Raises:
        Unavailable: the policy's own loop and this one give different trajectories from the same noise.
        """
        model, own = self.model, self._own
        if model.training:
            raise Unavailable("the policy is in training mode, where dropout is random: call policy.eval() first")
        like = model.pos_emb
        draw = torch.Generator().manual_seed(0)
        known = torch.zeros(1, *self.trajectory_shape).to(like)
        mask = torch.zeros_like(known, dtype=torch.bool)
        cond = None
        if model.obs_as_cond:
            cond = torch.randn(1, model.n_obs_steps, model.cond_dim, generator=draw).to(like)
        else:
            mask[:, :1, -1:] = True  # something is known
        sampler = ReferenceSampler(own)
        with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):
            torch.manual_seed(0)
            twin = self._twin(noise_scheduler=copy.copy(own.scheduler))  # its timesteps are set
            theirs = twin.conditional_sample(known.clone(), mask, cond=cond, **own.step_kwargs)
            torch.manual_seed(0)
            ours = sampler(_inputs(known, mask, cond))
        difference = ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)).item()
        if not difference <= _TOLERANCE:
            raise Unavailable(
                f"the denoising loop of this {type(self.original).__name__} is not that of the original project: one "
                f"trajectory differs by {difference:.1e} of its largest number. Its model can be cached in its own "
                "loop: bac.cache(policy.model, schedule)"
            )


class _Through:
    """A method of a policy object that goes through its face."""

    def __init__(self, face: AdoptedPolicy, name: str):
        self.face, self.name = face, name

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return (self.face.sample if self.name == "conditional_sample" else self.face.act)(*arguments, **options)


def _face_of(model: Any) -> Any:
    """The denoiser: the model itself where it is one of this project's, else its face."""
    try:
        model_blocks(model)
    except NoDenoiser:
        return DenoiserFace(model)
    return model


def _inputs(known: Tensor, mask: Tensor, cond: Tensor | None) -> OriginalInputs:
    return OriginalInputs(known, mask if bool(mask.any()) else None, cond)


@contextmanager
def _drawing_from(generator: Generators) -> Iterator[None]:
    token = _GENERATOR.set(generator)
    try:
        yield
    finally:
        _GENERATOR.reset(token)
