"""A sweep of learning rates as one stack of networks, against a Python loop over the networks.

The loop is what one writes first: a module of nn.Parameters, autograd and torch.optim.SGD for each network, every
step on that network's own mini-batch, then the projection. Both see the same batches, drawn outside the timing, and
start alike; `agrees` holds where all parameters end within 1e-4 of each other's scale. Prints one JSON row a size:
`python benchmarks/learning_rates.py`.
"""

import json
from functools import partial

import torch
from interleaved import DEVICE, row
from torch import Tensor, nn

from memlib.papers import learning_rate

SIZES = [(32, 32, 32, 60, 30), (128, 64, 32, 30, 25), (4, 1024, 256, 20, 0.95), (32, 1024, 256, 20, 0.95)]
PATH, PEER, BOUND = "learning-rate sweep", "a Python loop (autograd, SGD)", 50.0


class Network(nn.Module):
    """s(y) = 1/m w2 . relu(w1 y + b), one of the stack."""

    def __init__(self, w1: Tensor, b: Tensor, w2: Tensor) -> None:
        super().__init__()
        self.register_buffer("w1", w1)
        self.b, self.w2 = nn.Parameter(b), nn.Parameter(w2)

    def forward(self, y: Tensor) -> Tensor:
        """(B, 1) -> (B, 1)."""
        return torch.relu(y @ self.w1 + self.b) @ self.w2 / len(self.b)


def loop(start: learning_rate.TwoLayer, batches: list, rates: Tensor) -> list[Tensor]:
    """Every network for itself."""
    ends = []
    for i, rate in enumerate(rates.tolist()):
        network = Network(start.w1[i], start.b[i].clone(), start.w2[i].clone())
        engine = torch.optim.SGD(network.parameters(), rate * len(network.b))
        for batch in batches:
            engine.zero_grad()
            (network(batch.y[i]) - batch.target[i]).square().mean().backward()
            engine.step()
            with torch.no_grad():
                network.w2.clamp_(-BOUND, BOUND)
        ends.append((network.b.detach(), network.w2.detach()))
    return [torch.stack(part) for part in zip(*ends, strict=True)]


def stack(start: learning_rate.TwoLayer, problem: learning_rate.Problem, batches: list, rates: Tensor) -> list[Tensor]:
    """All at once."""
    net = start.members(torch.arange(len(rates)))
    list(learning_rate.descend(net, problem, rates, batches, bound=BOUND))
    return net.trained


def hidden_layers(start: learning_rate.TwoLayer, batches: list) -> None:
    """The hidden layer (E, B, width) of each step formed once and read once, for all networks at once."""
    hidden = torch.empty(*batches[0].y.shape[:2], start.b.shape[1], device=DEVICE)
    for batch in batches:
        torch.addcmul(start.b[:, None], batch.y, start.w1, out=hidden).sum(2)


def close(theirs: list[Tensor], ours: list[Tensor]) -> bool:
    """Equal up to float32 rounding, which a hundred steps amplify a little."""
    return all((a - b).abs().max() < 1e-4 * a.abs().max() for a, b in zip(theirs, ours, strict=True))


def main() -> None:
    """Print one row a size."""
    torch.set_num_threads(1)
    for members, width, size, steps, target in SIZES:
        seeds, rates = torch.arange(members), torch.logspace(-3, -2, members)
        points, seeds, rates = torch.linspace(-1.5, 1.5, 4, device=DEVICE)[:, None], seeds.to(DEVICE), rates.to(DEVICE)
        problem = learning_rate.problem(points, torch.full((members,), 0.3, device=DEVICE))
        start = learning_rate.two_layer(seeds, width).to(points)
        batches = list(learning_rate.minibatches(problem, seeds, size, steps))
        runs = partial(loop, start, batches, rates), partial(stack, start, problem, batches, rates)
        for run in runs:
            run()  # warm
        name = f"{members} networks of width {width}, batch {size}"
        bare = partial(hidden_layers, start, batches)
        reason = "so wide that a stack saves nothing but autograd" if width >= 1024 else ""
        print(
            json.dumps(row(PATH, PEER, name, *runs, close, target, 7, reason, bare)),
            flush=True,
        )


if __name__ == "__main__":
    main()
