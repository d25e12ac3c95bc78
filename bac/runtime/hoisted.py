"""What a chunk needs that does not depend on the noisy trajectory, prepared once: every hoisting runtime owns one."""

from __future__ import annotations

import torch
from torch import Tensor

from bac.denoiser import model_blocks
from bac.errors import Unavailable
from bac.horizon import check_tokens
from bac.known_modules import check_modules
from bac.loop import DenoisingLoop, Generators, SamplerInputs, check_inputs
from bac.plan import Plan, check_reuse
from bac.runtime.condition import ConditionTables, Memory
from bac.runtime.snapshot import ModelSnapshot, SamplerSnapshot
from bac.schedule import Schedule
from bac.solver import solver_of


class Hoisted:
    """The plan, the solver's table, the folded tokens, and the snapshots that tell whether they still hold.

    Args:
        schedule: None computes every block at every step.
        runtime: its name, for messages.
        tokens: of each trajectory, that are denoised; None: all.

    Raises:
        Unavailable: the model is none that runtimes can denoise, or needs the tokens that would be left out.
        UnknownModule: the model has a part that the runtime would leave out.
        ScheduleError: the schedule is for another model or number of steps, or extrapolates where noise is added.
        UnsupportedSolver: the scheduler's arithmetic is no table.
    """

    @torch.no_grad()
    def __init__(self, loop: DenoisingLoop, schedule: Schedule | None, runtime: str, tokens: int | None = None):
        self.loop, self.model, self.tokens = loop, loop.model, tokens
        model = self.model
        check_modules(model, runtime)
        check_tokens(loop, tokens)
        self.solver = solver_of(loop)
        blocks = model_blocks(model)
        if model.input_dim != model.output_dim:
            raise Unavailable(
                f"a denoiser keeps the trajectory's width, this model maps {model.input_dim} to {model.output_dim}"
            )
        self.schedule = Schedule.full(blocks, self.solver.steps) if schedule is None else schedule
        self.schedule.check_fits(blocks, self.solver.steps)
        check_reuse(self.schedule, self.solver)
        self.plan = Plan.of(self.schedule)
        self.device: torch.device = model.pos_emb.device
        self._draws: list[bool] = self.solver.draws.tolist()
        self.timesteps = torch.from_numpy(self.solver.timesteps).to(self.device)
        self.condition = ConditionTables(model, self.schedule, self.timesteps)
        self.snapshots = ModelSnapshot(model), SamplerSnapshot(loop)

    def memory(self, inputs: SamplerInputs) -> Memory | None:
        """What the observations decide, for every cross-attention of the chunk."""
        return self.condition.memory(inputs.observation, *inputs.head(self.tokens).known.shape[:2])

    def draw(self, known: Tensor, generator: Generators) -> tuple[Tensor, list[Tensor | None]]:
        """Initial noise and each step's noise [B, T, D], drawn in the order in which the reference draws them.

        Of all T tokens, also where fewer are denoised: what a seed means does not depend on that.
        """
        initial, noise = self.loop.draw(known, self._draws, generator)
        sigma = self.solver.init_sigma
        return (initial if sigma == 1 else initial * sigma), noise

    def check(self, inputs: SamplerInputs) -> None:
        """Refuses inputs that do not fit, and weights, a sampler or a device that changed under the tables.

        Raises:
            RuntimeError: what was hoisted no longer holds.
            ValueError: the inputs do not fit.
        """
        self.check_same_device(inputs)
        self.check_unchanged()
        check_inputs(inputs, self.model)

    def check_same_device(self, inputs: SamplerInputs) -> None:
        """The part of `check` about devices."""
        if inputs.known.device != self.device:
            raise RuntimeError(
                f"the policy was accelerated on {self.device} but is now on {inputs.known.device}: "
                "call accelerate() again"
            )

    def check_unchanged(self) -> None:
        """The part of `check` that looks at all weights, which takes a while."""
        model = self.model
        for snapshot in self.snapshots:
            snapshot.check()
        if model.training and model.drop.p + model.trunk.layers[0].dropout.p > 0:
            raise RuntimeError("the policy is in training mode, where dropout is random: call policy.eval() first")
