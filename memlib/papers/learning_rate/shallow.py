"""A stack of two-layer ReLU score networks with their gradient in closed form: a sweep is a few matrix products a step.

    s(y) = 1/m sum_l w2_l relu(w1_l . y + b_l)

Each member has its own weights. w1 lies on the unit sphere ({-1, 1} for d = 1) and stays fixed unless it is freed. Wu
et al. 2025, "Taking a Big Step", slide 9. d > 1, a free first layer and the initialisation are additions of this
library.
"""

import torch
from torch import Tensor

from memlib.papers.learning_rate.fixed_level import NoisyBatch, Problem, density, optimal_score
from memlib.random import keyed

_CELLS = 1 << 18  # numbers (M, B, m) held at once: two such pieces fit into a processor's cache


class TwoLayer:
    """M networks: w1 (M, d, m), b (M, m), w2 (M, m, d), trained in place; `trained` lists the tensors that move.

    `lr_scale` has one number for each trained tensor, which multiplies eta in its update: m, as on the slides.
    """

    def __init__(self, w1: Tensor, b: Tensor, w2: Tensor, free: bool = False) -> None:
        self.w1, self.b, self.w2, self.free = w1, b, w2, free
        self.trained = [b, w2, w1] if free else [b, w2]
        self.lr_scale = [float(b.shape[1])] * len(self.trained)
        self._work: tuple[Tensor, ...] = ()

    def __call__(self, y: Tensor) -> Tensor:
        """Scores at y, (M, B, d) -> (M, B, d)."""
        hidden = torch.baddbmm(self.b[:, None], y, self.w1).relu()
        return torch.bmm(hidden, self.w2) / self.b.shape[1]

    def members(self, index: Tensor) -> "TwoLayer":
        """A copy of some members, by index or mask (M,)."""
        return TwoLayer(self.w1[index].clone(), self.b[index].clone(), self.w2[index].clone(), self.free)

    def to(self, other: Tensor) -> "TwoLayer":
        """The networks in the dtype and on the device of a tensor of any shape."""
        return TwoLayer(*(t.to(other) for t in (self.w1, self.b, self.w2)), free=self.free)

    def with_parameters(self, trained: list[Tensor]) -> "TwoLayer":
        """The same networks with these tensors (M, ...) instead of `trained`."""
        b, w2, w1 = trained if self.free else (*trained, self.w1)
        return TwoLayer(w1, b, w2, self.free)

    @torch.no_grad()
    def gradient(self, batch: NoisyBatch) -> list[Tensor]:
        """Gradients of the risk on a batch with y (M, B, d), in the order of `trained`."""
        step = max(1, _CELLS // (batch.y.shape[1] * self.b.shape[1]))
        parts = [self._gradient(batch, slice(i, i + step)) for i in range(0, len(self.b), step)]
        return [torch.cat(tensors) for tensors in zip(*parts, strict=True)]

    def kinks(self, problem: Problem) -> list[Tensor]:
        """What the kinks add to the diagonal of the Hessian of R_n, for d = 1: (M, m) for b, zero for the rest.

        Moving b moves the kink of its unit across the density of Y. So the second derivative of R_n in b_l is
        2/m w2_l (s - s*)(y_l) p(y_l) larger than the mean of the second derivatives, in which relu'' = 0.
        """
        place = (-self.b / self.w1[:, 0])[..., None]  # (M, m, 1): where w1 y + b = 0
        gap = (self(place) - optimal_score(problem, place))[..., 0]
        slope = self.w1[:, 0].abs()  # delta(w1 y + b) = delta(y - y_l) / |w1|
        extra = 2 / self.b.shape[1] * self.w2[..., 0] * gap * density(problem, place) / slope
        return [extra, *(torch.zeros_like(p) for p in self.trained[1:])]

    def _gradient(self, batch: NoisyBatch, some: slice) -> list[Tensor]:
        """The gradients of some members."""
        y, target, w1, b, w2 = (t[some] for t in (batch.y, batch.target, self.w1, self.b, self.w2))
        width, line = b.shape[1], y.shape[2] == 1
        hidden, spare = self._room(y, width)  # (M, B, m) each
        if line:  # products with a single column are written out: batched kernels are slow at them
            torch.addcmul(b[:, None], y, w1, out=hidden).clamp_(min=0)
            score = torch.mul(hidden, w2.mT, out=spare).sum(2, keepdim=True)
        else:
            torch.baddbmm(b[:, None], y, w1, out=hidden).clamp_(min=0)
            score = torch.bmm(hidden, w2)
        residual = score.mul_(1 / width).sub_(target).mul_((2 / width) * batch.weight[:, None])  # dR/ds / m
        to_w2 = torch.bmm(residual.mT, hidden).mT
        active = torch.sign(hidden, out=spare)  # relu', 0 or 1
        if line:  # every unit sees the same residual: no (M, B, m) product is formed
            seen = torch.cat([residual, residual * y], 2) if self.free else residual
            back = torch.bmm(seen.mT, active).mul_(w2.mT)  # (M, 1 or 2, m)
            return [back[:, 0], to_w2, *([back[:, 1:]] if self.free else [])]
        back = torch.bmm(residual, w2.mT).mul_(active)  # (M, B, m)
        return [back.sum(1), to_w2, *([torch.bmm(y.mT, back)] if self.free else [])]

    def _room(self, y: Tensor, width: int) -> tuple[Tensor, ...]:
        """Two tensors (M, B, m), kept from step to step."""
        shape = (*y.shape[:2], width)
        if not self._work or self._work[0].shape != shape or self._work[0].dtype != y.dtype:
            self._work = tuple(y.new_empty(shape) for _ in range(2))
        return self._work


def two_layer(
    seeds: Tensor, width: int, dim: int = 1, *, reach: float = 2.0, scale: float | Tensor = 1.0, free: bool = False
) -> TwoLayer:
    """Fresh members, one for each seed (M,), in torch's default dtype. Members with the same seed start alike.

    Arguments:
        width: m, the number of units.
        dim: d; w1 is uniform on the unit sphere of this dimension.
        reach: b is uniform in [-reach, reach].
        scale: standard deviation of the normal w2, a number or (M,).
        free: whether w1 is trained too.
    """

    def initial(seed: int) -> tuple[Tensor, ...]:
        generator = keyed(seed, -1)  # apart from the batches, whose blocks count from 0
        w1 = torch.randn(dim, width, generator=generator, dtype=torch.float64)
        b = reach * (2 * torch.rand(width, generator=generator, dtype=torch.float64) - 1)
        return w1 / w1.norm(dim=0), b, torch.randn(width, dim, generator=generator, dtype=torch.float64)

    names, which = seeds.unique(return_inverse=True)
    parts = zip(*(initial(int(name)) for name in names), strict=True)
    w1, b, w2 = (torch.stack(part)[which].to(torch.get_default_dtype()) for part in parts)
    return TwoLayer(w1, b, w2 * torch.as_tensor(scale).to(w2).reshape(-1, 1, 1), free)
