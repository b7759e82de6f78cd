"""A stack of deeper networks, which the theorem does not cover; the gradient comes from autograd."""

import torch
from torch import Tensor

from memlib.papers.learning_rate.fixed_level import NoisyBatch, risk
from memlib.random import keyed


class Deep:
    """M networks of ReLU layers with every weight free, s = 1/m w_last . h: weights (M, in, out), biases (M, out).

    The risks of the members are summed before differentiating, which leaves each its own gradient. `lr_scale` is m for
    all but the inner matrices: their m^2 weights move the score as far at scale 1 as the m of another layer do at m.
    """

    def __init__(self, weights: list[Tensor], biases: list[Tensor]) -> None:
        self.weights, self.biases = weights, biases
        self.w2 = weights[-1]  # what the projection holds within [-A, A], as in `TwoLayer`
        self.trained = [*biases, *weights]
        width = float(self.w2.shape[1])
        self.lr_scale = [width] * len(biases) + [width, *[1.0] * (len(weights) - 2), width]

    def __call__(self, y: Tensor) -> Tensor:
        """Scores at y, (M, B, d) -> (M, B, d)."""
        for weight, bias in zip(self.weights, self.biases, strict=False):
            y = torch.baddbmm(bias[:, None], y, weight).relu()
        return torch.bmm(y, self.weights[-1]) / self.weights[-1].shape[1]

    def members(self, index: Tensor) -> "Deep":
        """A copy of some members, by index or mask (M,)."""
        return Deep([w[index].clone() for w in self.weights], [b[index].clone() for b in self.biases])

    def to(self, other: Tensor) -> "Deep":
        """The networks in the dtype and on the device of a tensor of any shape."""
        return Deep([w.to(other) for w in self.weights], [b.to(other) for b in self.biases])

    def with_parameters(self, trained: list[Tensor]) -> "Deep":
        """The same networks with these tensors (M, ...) instead of `trained`."""
        return Deep(trained[len(self.biases) :], trained[: len(self.biases)])

    def gradient(self, batch: NoisyBatch) -> list[Tensor]:
        """Gradients of the risk on a batch with y (M, B, d), in the order of `trained`."""
        with torch.enable_grad():
            leaves = [p.detach().requires_grad_() for p in self.trained]
            return list(torch.autograd.grad(risk(self.with_parameters(leaves), batch).sum(), leaves))


def deep(
    seeds: Tensor,
    width: int,
    dim: int = 1,
    layers: int = 2,
    *,
    reach: float = 2.0,
    scale: float | Tensor = 1.0,
    outputs: int | None = None,
) -> Deep:
    """Fresh members, one for each seed (M,), with `layers` hidden layers, in torch's default dtype.

    The first and last layer start as in `two_layer`. Inner matrices are normal with variance 2/m (He et al. 2015), and
    their biases are 0. `outputs` is the size of what is returned, where it is not `dim`.
    """

    def initial(seed: int) -> list[Tensor]:
        generator = keyed(seed, -1)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        first = normal(dim, width)
        b = reach * (2 * torch.rand(width, generator=generator, dtype=torch.float64) - 1)
        last = normal(width, outputs or dim)
        inner = [normal(width, width) * (2 / width) ** 0.5 for _ in range(layers - 1)]
        return [first / first.norm(dim=0), *inner, last, b, *[torch.zeros_like(b)] * (layers - 1)]

    names, which = seeds.unique(return_inverse=True)
    parts = zip(*(initial(int(name)) for name in names), strict=True)
    stacked = [torch.stack(part)[which].to(torch.get_default_dtype()) for part in parts]
    stacked[layers] *= torch.as_tensor(scale).to(stacked[0]).reshape(-1, 1, 1)
    return Deep(stacked[: layers + 1], stacked[layers + 1 :])
