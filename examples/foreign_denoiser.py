"""Cache the blocks of a transformer of another project in its own loop: python examples/foreign_denoiser.py

A flow-matching denoiser of PyTorch's layers, with random weights, and Euler's method in ten steps.
"""

import torch
from torch import nn

from bac import bua, cache
from bac.adapters import find_blocks
from bac.any_model import profile_model

TOKENS, ACTION_DIM, WIDTH, STEPS = 8, 3, 32, 10


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head, self.time = nn.Linear(3, WIDTH), nn.Linear(WIDTH, ACTION_DIM), nn.Linear(1, WIDTH)
        layer = nn.TransformerDecoderLayer(WIDTH, 4, 64, batch_first=True, norm_first=True)
        self.decoder = nn.TransformerDecoder(layer, num_layers=3)

    def forward(self, x: torch.Tensor, t: float, observation: torch.Tensor) -> torch.Tensor:
        memory = torch.cat([self.time(torch.full((len(x), 1, 1), t)), observation], dim=1)
        return self.head(self.decoder(self.embed(x), memory))


def sample(model: nn.Module, seed: int) -> torch.Tensor:
    x = torch.randn(1, TOKENS, ACTION_DIM, generator=torch.Generator().manual_seed(seed))
    observation = torch.randn(1, 2, WIDTH, generator=torch.Generator().manual_seed(1000 + seed))
    for step in range(STEPS):
        x = x + model(x, step / STEPS, observation) / STEPS
    return x


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    model = Denoiser().eval()
    matrices = profile_model(model, find_blocks(model), STEPS, lambda i: sample(model, i), runs=4)
    schedule = bua.bac(matrices["cosine"], matrices["l1"], budget=5, top_k=3)
    print(schedule)
    plain = sample(model, seed=9)
    with cache(model, schedule) as cached, cached.chunk():
        moved = (sample(model, seed=9) - plain).abs().max().item()
    print(f"{cached.block_updates.total()} of {schedule.updates.size} branches computed; actions moved by {moved:.4f}")


if __name__ == "__main__":
    main()
