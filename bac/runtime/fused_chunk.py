"""One action chunk of the loop with fused kernels: which kernel runs when, and on which tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bac.denoiser import Layer
from bac.loop import SamplerInputs
from bac.native.gpu.structs import FUSED_UNITS, ROW
from bac.plan import Segment
from bac.runtime.condition import Memory, MixedMemory, SeparableMemory
from bac.runtime.eager import Cache

if TYPE_CHECKING:
    from bac.runtime.fused_loop import FusedLoop


class Chunk:
    """One chunk: its trajectory [B, T, E], its residual stream x [B, T, D], and what is still to be added to that.

    Attributes:
        out, bias: output of the block before, and the bias of its last product where that was left out; None: added.
        total: sum of reused outputs [B, T, D] that comes after it, or None.
        n: the norm of x for the block that computes next, or None where nothing has taken it yet.
    """

    def __init__(self, loop: FusedLoop, trajectory: Tensor, inputs: SamplerInputs, memory: Memory):
        self.loop, self.model, self.trajectory, self.memory = loop, loop.model, trajectory, memory
        batch, tokens, numbers = trajectory.shape
        self.rows, width, heads = batch * tokens, self.model.n_emb, self.model.n_head
        mask, _ = self.model.masks(tokens)
        self.mask = None if mask is None else mask.to(torch.float32).contiguous()
        self.cache = Cache(loop, trajectory, tokens)
        self.known: dict[str, Tensor | None] = {}
        if inputs.mask is not None:
            self.known = {"known": inputs.known.contiguous(), "given": inputs.mask.contiguous()}
        self.sizes = {"tokens": tokens, "width": width, "heads": heads, "numbers": numbers}
        self.brief = int(loop.dtype is torch.bfloat16)
        self.x = trajectory.new_empty(batch, tokens, width)
        self.n: Tensor | None = None
        self.out: Tensor | None = None
        self.bias: Tensor | None = None
        self.total: Tensor | None = None
        self.last: Tensor | None = None  # the scheduler's estimate of the step before
        self.folded: tuple[Tensor, ...] = ()  # of all layers, see `_mixed`
        self.folded_at: int | None = None

    # ---- one step ----
    def compute(self, step: int) -> None:
        """All blocks of a step; what is left is in `x`, `out`, `bias` and `total`."""
        segments = self.loop.hoisted.plan.steps[step]
        for segment, after in zip(segments, (*segments[1:], None)):
            if segment.stop > segment.start:
                self.total = self.cache.total(segment, step)
            if segment.block is None:
                continue
            kind, layer = self.loop.kinds[segment.block], self.loop.layers[segment.block]
            if kind == "ca":
                self._cross(step, segment, layer, self._norm_at(after))
                continue
            n = self._normed(layer.norm1 if kind == "sa" else layer.ffn_norm)
            product, last = self._attended(n, layer) if kind == "sa" else self._hidden(n, layer)
            if segment.store:
                self.out, self.bias = self._stored(segment, product, last), None
            else:
                self.out, self.bias = self._product(product, last), last.bias

    def _pending(self) -> dict[str, Tensor | None]:
        """What the next kernel adds to x."""
        pending = {"x": self.x, "out": self.out, "bias": self.bias, "total": self.total}
        self.out = self.bias = self.total = None
        return pending

    def _norm_at(self, segment: Segment | None) -> nn.LayerNorm | None:
        """The norm that a segment begins with, if that is its block's and no reused output comes before."""
        if segment is None or segment.block is None or segment.stop > segment.start:
            return None
        kind, layer = self.loop.kinds[segment.block], self.loop.layers[segment.block]
        return {"sa": layer.norm1, "ffn": layer.ffn_norm}.get(kind)

    def _normed(self, norm: nn.LayerNorm) -> Tensor:
        """The norm of x [B, T, D] with all that is still to be added, in the precision of products."""
        if self.n is not None and self.out is None and self.total is None:
            return self.n
        self.n = None
        n = self.x.new_empty(self.x.shape, dtype=self.loop.dtype)
        tensors = {**self._pending(), "gain": norm.weight, "shift": norm.bias, "n": n}
        self._start("add_norm", self.rows, tensors, eps=norm.eps)
        return n

    def _attended(self, n: Tensor, layer: Layer) -> tuple[Tensor, nn.Linear]:
        attention = layer.self_attn
        qkv = self.loop._linear(n, attention.in_proj_weight, attention.in_proj_bias)  # [B, T, 3 D]
        y, scale = torch.empty_like(n), (self.x.shape[-1] // attention.n_head) ** -0.5
        self._start("attend", self.rows * attention.n_head, {"qkv": qkv, "mask": self.mask, "y": y}, scale=scale)
        return y, attention.out_proj

    def _hidden(self, n: Tensor, layer: Layer) -> tuple[Tensor, nn.Linear]:
        hidden, bias = self._product(n, layer.linear1), layer.linear1.bias
        units = hidden.shape[-1]
        items = self.rows * -(-units // FUSED_UNITS)
        self._start("gelu", items, {"hidden": hidden, "hidden_bias": bias}, units=units)
        return hidden, layer.linear2

    def _product(self, n: Tensor, linear: nn.Linear) -> Tensor:
        """Without the bias, which the kernel that reads it adds."""
        weights = self.loop.weights
        return F.linear(n, weights[id(linear.weight)] if weights else linear.weight)

    def _stored(self, segment: Segment, product: Tensor, last: nn.Linear) -> Tensor:
        """A block's output [B, T, D] with its bias, as it is stored; at once in its place where no slope needs both."""
        if segment.gap or self.brief:
            out = self.loop._linear(product, last.weight, last.bias)
            self.cache.put(segment, out)
            return out
        place = self.cache.values[segment.block]
        torch.addmm(last.bias, product.flatten(0, 1), last.weight.t(), out=place.flatten(0, 1))
        return place

    def _cross(self, step: int, segment: Segment, layer: Layer, following: nn.LayerNorm | None) -> None:
        norm, attention = layer.norm2, layer.multihead_attn
        assert segment.block is not None
        tensors = {**self._folded(step, segment.block // 3), **self._pending()}
        tensors |= {"gain": norm.weight, "shift": norm.bias, "out_bias": attention.out_proj.bias}
        branch = None
        if segment.store:
            branch = torch.empty_like(self.x) if segment.gap else self.cache.values[segment.block]
        self.n = None
        if following is not None:
            self.n = self.x.new_empty(self.x.shape, dtype=self.loop.dtype)
            tensors |= {"next_gain": following.weight, "next_shift": following.bias, "n": self.n}
        key = tensors["key"]
        assert key is not None
        eps = {"eps": norm.eps, "next_eps": 0.0 if following is None else following.eps}
        condition = key.shape[-2] if key.ndim == 4 else key.shape[1] // attention.n_head
        self._start("cross", self.rows, {**tensors, "branch": branch}, **eps, condition=condition)
        if branch is not None and segment.gap:
            self.cache.put(segment, branch)

    def _folded(self, step: int, layer: int) -> dict[str, Tensor | None]:
        """Folded condition tokens of a layer; a time token that does not mix with others is read from its table."""
        memory, times = self.memory, self.loop.time
        if times is None or not isinstance(memory, SeparableMemory):
            key, bias, value = self._mixed(step, layer)
            return {"key": key, "score_bias": bias, "value": value}
        time = times[layer, step]
        return {
            "key": memory.key[layer],
            "score_bias": memory.bias[layer],
            "value": memory.value[layer],
            "time_key": time.key,
            "time_bias": time.bias,
            "time_value": time.value,
            "time_mask": memory.mask_rows,
        }

    def _mixed(self, step: int, layer: int) -> tuple[Tensor, ...]:
        """Key, bias and value where condition tokens mix; folded for all layers at once where most of them need it."""
        if isinstance(self.memory, MixedMemory) and step != self.folded_at:
            blocks = [segment.block for segment in self.loop.hoisted.plan.steps[step] if segment.block is not None]
            many = 2 * sum(self.loop.kinds[block] == "ca" for block in blocks) > len(self.model.trunk.layers)
            parts = self.memory.all_layers(step) if many else ()
            self.folded, self.folded_at = tuple(part.contiguous() for part in parts), step
        if self.folded:
            return tuple(part[layer] for part in self.folded)
        return tuple(part.contiguous() for part in self.memory.at(step, layer))

    # ---- from one step to the next ----
    def turn(self, step: int | None, noise: Tensor | None) -> None:
        """After a step (None: before the first) the scheduler's update and the embedding for the next one, if any."""
        solver, after = self.loop.hoisted.solver, 0 if step is None else step + 1
        tensors: dict[str, Tensor | None] = {"x": self.x, "trajectory": self.trajectory, **self.known}
        numbers: dict[str, Any] = {}
        self.trajectory = torch.empty_like(self.trajectory)
        tensors["next"] = self.trajectory
        if step is not None:
            row = dict(zip(ROW, (*self.loop.coefficients[step], solver.clip)))
            norm, head = self.model.ln_f, self.model.head
            tensors |= self._pending()
            tensors |= {"gain": norm.weight, "shift": norm.bias, "head": head.weight, "head_bias": head.bias}
            tensors["last"] = self.last if row["to_last"] else None
            self.last = tensors["estimate"] = torch.empty_like(self.trajectory)
            numbers = {**row, "eps": norm.eps}
            if row["sigma"] and noise is not None and solver.draws[step]:
                tensors["noise"], numbers["noise_stride"] = noise.contiguous(), noise.shape[1] * noise.shape[2]
        self.n = None
        if after < solver.steps:
            tensors |= {"embed": self.loop.embed, "position": self.loop.position}
            first = self._norm_at(self.loop.hoisted.plan.steps[after][0])
            if first is not None:
                self.n = self.x.new_empty(self.x.shape, dtype=self.loop.dtype)
                tensors |= {"next_gain": first.weight, "next_shift": first.bias, "n": self.n}
                numbers["next_eps"] = first.eps
        self._start("turn", self.rows, tensors, **numbers)

    def _start(self, name: str, items: int, tensors: dict[str, Tensor | None], **numbers: Any) -> None:
        brief = {"brief_in": self.brief, "brief_out": self.brief}
        self.loop.start(name, items, tensors, {**self.sizes, **brief, **numbers})
