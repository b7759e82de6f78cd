"""G1: a sum of divergences as a measure of memorization: is its closed form right, and what does it rank first?"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from memlib.analytic import GaussianMixture
from memlib.papers.gaussian.closed_forms import kl_to_points
from memlib.papers.gaussian.study.data import NARROW, Draws


@dataclass(frozen=True)
class Divergence:
    """The measure of one Gaussian model, three times over, and of three models. In nats, summed over the points."""

    n_points: int
    n_draws: int
    variances: Tensor  # (V,): epsilon
    closed: Tensor  # (V,): SIDE eq. 22
    torchs: Tensor  # (V,): torch.distributions
    estimate: Tensor  # (V,): Monte Carlo
    error: Tensor  # (V,): its standard error
    ranking: dict[str, tuple[float, float]]  # by model, at variance NARROW: the measure and its standard error


def measure(drawn: Draws, n_draws: int, seed: int) -> Divergence:
    """Compute the measure for the Gaussian with the moments of the training points, and for two other models."""
    points, variances = drawn.points, torch.logspace(-3, -0.1, 8)
    mean, covariance = points.mean(0), points.T.cov()
    model = MultivariateNormal(mean, covariance)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # torch.distributions draws from the global generator
        samples = model.sample((n_draws,))
    distance, log_p = torch.cdist(samples, points).square(), model.log_prob(samples)[:, None]
    terms = torch.stack([_log_ratio(log_p, distance, e) for e in variances])  # (V, n_draws)
    return Divergence(
        n_points=len(points),
        n_draws=n_draws,
        variances=variances,
        closed=torch.stack([kl_to_points(mean, covariance, points, e) for e in variances]),
        torchs=torch.stack([_by_torch(model, points, e) for e in variances]),
        estimate=terms.mean(1),
        error=terms.std(1) / n_draws**0.5,
        ranking=ranking(drawn, mean, covariance),
    )


def ranking(drawn: Draws, mean: Tensor, covariance: Tensor) -> dict[str, tuple[float, float]]:
    """The measure at variance NARROW of a broad Gaussian, of a model that copies, and of one that has collapsed.

    mean (d,) and covariance (d, d) are those of the training points. The second has no closed form: its value is an
    average over `drawn.copies`, with a standard error.
    """
    points, e = drawn.points, torch.tensor(NARROW)
    copying = GaussianMixture(points, std=NARROW**0.5)
    distance = torch.cdist(drawn.copies, points).square()
    terms = _log_ratio(copying.log_prob(drawn.copies)[:, None], distance, e)
    collapsed = e * torch.eye(len(mean))
    return {
        "broad Gaussian": (float(kl_to_points(mean, covariance, points, e)), 0.0),
        "perfect memorizer": (float(terms.mean()), float(terms.std() / len(terms) ** 0.5)),
        "collapsed on the mean": (float(kl_to_points(mean, collapsed, points, e)), 0.0),
    }


def _log_ratio(log_p: Tensor, distance: Tensor, e: Tensor) -> Tensor:
    """Sum over points of log p(x) - log N(x; point, e I) in the plane, (B,); log p (B, 1), |x - point|^2 (B, N)."""
    return (log_p + distance / (2 * e) + (2 * torch.pi * e).log()).sum(1)


def _by_torch(model: MultivariateNormal, points: Tensor, e: Tensor) -> Tensor:
    """The same sum of divergences by `torch.distributions`, a scalar."""
    return kl_divergence(model, MultivariateNormal(points, e * torch.eye(points.shape[1]))).sum()
