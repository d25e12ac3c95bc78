"""What reusing a block's output costs: how much it moves the executed actions, to first order.

The features of two steps may be far apart without any consequence, or close and decisive. So the uncached chain is
differentiated. With f_b(k) the output of block b at step k, and g_b(k) the gradient of v . (executed actions) with
respect to it for a random direction v ~ N(0, I), holding the output of step a up to step e moves v . (actions) by

    sum over k = a+1 .. e of  g_b(k) . (f_b(a) - f_b(k)).

The cost is the square of this, averaged over directions: an estimate of the squared distance of the executed actions.
The sum is inside the square, as errors of neighbouring steps add up or cancel. A state's costs are divided by the sum
of its shortest ones, those of holding one block for one step, so that no single state rules the average.

Memory does not grow with the number of states, and there is no graph over all steps: the chain runs forward once, and
then backward step by step, each recomputed with the adjoint of its result.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bac.denoiser import Branch, branch, model_blocks
from bac.errors import Unavailable
from bac.holding import CostSum, HoldingCosts
from bac.known_modules import check_containers
from bac.loop import DenoisingLoop, SamplerInputs, check_inputs
from bac.solver import Solver, solver_of


def holding_costs(
    loop: DenoisingLoop,
    inputs: SamplerInputs,
    chunk: slice,
    tokens: int | None = None,
    draws: int = 4,
    seed: int = 0,
    action_dim: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> HoldingCosts:
    """Measures what reuse costs on N states.

    Args:
        loop: the denoising loop; its solver must be a table.
        inputs: of N states, as `policy.sampler_inputs` makes them.
        chunk: the tokens that are executed (`policy.chunk`).
        tokens: only the first ones are denoised, where later ones cannot reach the executed ones; None: all.
        draws: directions v per state.
        seed: of noise and directions.
        action_dim: numbers of a token that are the action; None: all.
        progress: called with (done, total) states.

    Raises:
        UnsupportedSolver: the scheduler's arithmetic is no table.
        ValueError: the inputs or the chunk do not fit, or the gradients are not finite.
    """
    model = loop.model
    check_containers(model)
    check_inputs(inputs, model)
    if model.training:
        raise Unavailable("the policy is in training mode, where dropout is random: call policy.eval() first")
    available = inputs.known.shape[1] if tokens is None else tokens
    if not len(range(*chunk.indices(available))) or chunk.indices(available)[1] != chunk.stop:
        raise ValueError(f"the executed chunk {chunk} does not lie within the {available} denoised tokens")
    chain = _Chain(loop, chunk, tokens, inputs.known.shape[2] if action_dim is None else action_dim)
    costs = CostSum(chain.blocks, chain.solver.steps, chain.solver.deterministic)
    for row in range(len(inputs)):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + row)
        costs.add(chain.first_order(inputs[row : row + 1], draws, generator), f"state {row}")
        if progress is not None:
            progress(row + 1, len(inputs))
    return costs.mean()


class _Chain:
    """The uncached denoising chain of one state, forward and backward."""

    def __init__(self, loop: DenoisingLoop, chunk: slice, tokens: int | None, action_dim: int):
        self.loop, self.model = loop, loop.model
        self.chunk, self.tokens, self.action_dim = chunk, tokens, action_dim
        self.solver: Solver = solver_of(loop)
        self.blocks = model_blocks(loop.model)

    def first_order(self, inputs: SamplerInputs, draws: int, generator: torch.Generator) -> np.ndarray:
        """Moves of v . actions, [blocks, P, K, K]: entry a, k is that of using f_b(a) in place of f_b(k) at step k.

        Zero for k <= a: only the outputs of earlier steps can be reused.
        """
        solver = self.solver
        initial, noise = self._draw(inputs.known, generator)
        known = inputs.known[:, : self.tokens]
        mask = None if inputs.mask is None else inputs.mask[:, : self.tokens]
        states, features = self._forward(initial, noise, known, mask, inputs.observation)
        # adjoint of the trajectory [P, n, D]: the direction, on the executed tokens
        adjoint = torch.zeros(draws, *initial.shape[1:], dtype=initial.dtype, device=initial.device)
        direction = torch.randn(draws, *adjoint[:, self.chunk, : self.action_dim].shape[1:], generator=generator)
        adjoint[:, self.chunk, : self.action_dim] = direction.to(adjoint)
        adjoint = adjoint if mask is None else adjoint.masked_fill(mask, 0.0)
        adjoint_last = torch.zeros_like(adjoint)  # of the estimate x0 that the next step is given
        moved = np.zeros((len(self.blocks), draws, solver.steps, solver.steps))
        for step in reversed(range(solver.steps)):
            with torch.enable_grad():
                x = states[step].expand(draws, -1, -1).clone().requires_grad_()
                imposed = _impose(x, known, mask)
                outputs: list[Tensor] = []
                prediction = self._denoise(step, imposed, inputs.observation, outputs)
                after, x0 = self._solve(step, imposed, prediction, None, None)
                gradients = torch.autograd.grad([after, x0], [x, *outputs], [adjoint, adjoint_last])
            adjoint_last = adjoint * solver.table[step, 4]
            adjoint = gradients[0]
            gradient = torch.stack(gradients[1:]).flatten(2)  # [blocks, P, n D]
            change = features[:, :step] - features[:, step : step + 1]  # [blocks, a < k, n D]
            moved[:, :, :step, step] = torch.bmm(gradient, change.transpose(1, 2)).double().cpu().numpy()
        return moved

    def _draw(self, known: Tensor, generator: torch.Generator) -> tuple[Tensor, list[Tensor | None]]:
        """Initial noise and each step's [1, n, D]; drawn for all tokens, in the sampler's order."""
        initial, noise = self.loop.draw(known, self.solver.draws.tolist(), [generator])
        kept = [None if item is None else item[:, : self.tokens] for item in noise]
        return initial[:, : self.tokens] * self.solver.init_sigma, kept

    @torch.no_grad()
    def _forward(
        self,
        trajectory: Tensor,
        noise: list[Tensor | None],
        known: Tensor,
        mask: Tensor | None,
        observation: Tensor | None,
    ) -> tuple[list[Tensor], Tensor]:
        """Trajectory [1, n, D] before each step, and block outputs [blocks, K, n D]."""
        states, features, last = [], [], None
        for step in range(self.solver.steps):
            states.append(trajectory)
            outputs: list[Tensor] = []
            trajectory = _impose(trajectory, known, mask)
            prediction = self._denoise(step, trajectory, observation, outputs)
            trajectory, last = self._solve(step, trajectory, prediction, last, noise[step])
            features.append(torch.cat(outputs).flatten(1))
        return states, torch.stack(features, dim=1)

    def _denoise(self, step: int, x: Tensor, observation: Tensor | None, outputs: list[Tensor]) -> Tensor:
        """Prediction [B, n, D]; the block outputs [B, n, D] go to `outputs`."""
        model = self.model
        with torch.no_grad():  # neither time nor observation depends on the trajectory
            timestep = torch.as_tensor(self.solver.timesteps[step], device=x.device)
            time_token = model.embed_time(timestep, len(x), x.device)
            observed = None if observation is None else observation.expand(len(x), -1, -1)
            memory = None if model.encoder_only else model.encode_condition(time_token, observed)
        stream = model.embed_trajectory(x, time_token)
        masks = model.masks(stream.shape[1], 0 if memory is None else memory.shape[1])
        for block in self.blocks:
            compute: Branch = branch(model, block, *masks)
            outputs.append(compute(stream, memory))
            stream = stream + outputs[-1]
        return model.read_out(stream)

    def _solve(
        self, step: int, x: Tensor, prediction: Tensor, last: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """One row of the solver's table (see `bac.solver`): the next trajectory, and the estimate of the clean one."""
        x_gain, m_gain, to_x, to_x0, to_last, to_m, sigma = self.solver.table[step].tolist()
        x0 = x * x_gain + prediction * m_gain
        x0 = x0 if self.solver.clip == float("inf") else x0.clamp(-self.solver.clip, self.solver.clip)
        after = x * to_x + x0 * to_x0 + prediction * to_m
        if last is not None and to_last:
            after = after + last * to_last
        if noise is not None:
            after = after + noise * sigma
        return after, x0


def _impose(x: Tensor, known: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else torch.where(mask, known, x)
