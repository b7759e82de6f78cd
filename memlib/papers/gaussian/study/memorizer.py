"""G6: the denoiser that minimises the training loss exactly returns training points."""

from dataclasses import dataclass

import torch
from torch import Tensor

from memlib.analytic import Empirical, GaussianMixture
from memlib.metrics import Count
from memlib.noise import add_noise, karras, seeded
from memlib.papers.gaussian.toys import mixture
from memlib.sample import heun, heun_path, start

COPY = 1e-6  # a sample this near to a training point is a copy
SHOWN = 2000  # samples that are kept to be drawn
LEVELS = (2.0, 0.5, 0.1)  # where the two scores are compared


@dataclass(frozen=True)
class Memorizer:
    """What sampling with the perfect memorizer, and with the mixture behind its points, gave."""

    copies: dict[str, Count]  # samples that are a training point, by model
    distinct: int  # training points among the memorizer's samples
    points: Tensor  # (n_points, 2)
    shown: dict[str, Tensor]  # by model, at most (SHOWN, 2), float32
    levels: Tensor  # (L,): noise levels on the way down
    effective: Tensor  # (3, L): 5 %, 50 % and 95 % of the number of points that a sample still mixes
    gaps: dict[float, float]  # rms difference of the two scores over the mixture's own, by noise level

    @property
    def commits(self) -> float:
        """The noise level from which on half of the samples mix fewer than 1.5 points; 0 where they never do."""
        settled = self.levels[self.effective[1] < 1.5]
        return float(settled.max()) if len(settled) else 0.0


def measure(points: Tensor, n_samples: int, seed: int) -> Memorizer:
    """Sample the memorizer of `points` (N, 2) and the mixture; sample i of both starts from the same noise."""
    grid, memorizer = karras(60), Empirical(points)
    begin = start(grid, range(n_samples), (2,), dtype=points.dtype)
    effective = []
    for sigma, state in zip(grid[1:], heun_path(memorizer, begin, grid), strict=True):
        if sigma > 0:
            effective.append(_effective(memorizer, state, float(sigma)))
    samples = {"memorizer": state, "mixture itself": heun(mixture(), begin, grid)}
    nearest = {name: torch.cdist(x, points).min(1) for name, x in samples.items()}
    return Memorizer(
        copies={name: Count(int((near.values < COPY).sum()), n_samples) for name, near in nearest.items()},
        distinct=len(nearest["memorizer"].indices.unique()),
        points=points,
        shown={name: x[:SHOWN].float() for name, x in samples.items()},
        levels=grid[1:-1],
        effective=torch.stack(effective, 1),
        gaps=score_gaps(points, n_samples, seed),
    )


def score_gaps(points: Tensor, n: int, seed: int) -> dict[float, float]:
    """How far the memorizer's score is from the mixture's at n fresh points, for each of `LEVELS`.

    The rms difference in units of the mixture's own rms score. points: (N, 2).
    """
    fresh, _ = mixture().sample(n, torch.Generator().manual_seed(seed + 2))
    gaps = {}
    for sigma in LEVELS:
        x = add_noise(fresh, sigma, seeded(range(n)))
        exact, learnt = mixture()(x, sigma) - x, Empirical(points)(x, sigma) - x
        gaps[sigma] = float((exact - learnt).square().mean().sqrt() / exact.square().mean().sqrt())
    return gaps


def _effective(memorizer: GaussianMixture, x: Tensor, sigma: float) -> Tensor:
    """5 %, 50 % and 95 %, over x (B, 2), of the exponential of the entropy of the posterior over points, (3,)."""
    sizes = torch.special.entr(memorizer.posterior(x, sigma)).sum(1).exp()
    return sizes.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=sizes.dtype))
