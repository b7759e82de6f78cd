"""The pull of a classifier, grad_x log p(y | x, sigma): made for `denoiser.guided`, and judged at every noise level."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from memlib.analytic import Empirical
from memlib.denoiser import Denoiser, gradient
from memlib.errors import Refused
from memlib.metrics import Count
from memlib.noise import Noise, add_noise, expand_sigma

Logits = Callable[[Tensor, Tensor], Tensor]
"""A classifier of noisy samples: (x, sigma) -> logits (B, K); x (B, *S), sigma () or (B,)."""

_ROWS = 1024  # images classified at once where no gradient is wanted


def log_p(classifier: Logits, labels: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """log p(label | x, sigma), (x, sigma) -> (B,), for `denoiser.guided`; labels (B,), one a sample.

    Raises Refused for a classifier in training mode, in which batch norm makes every sample depend on all others.
    """
    require_eval(classifier)

    def value(x: Tensor, sigma: Tensor) -> Tensor:
        return -cross_entropy(classifier(x, sigma), labels.to(x.device), reduction="none")

    return value


def as_ddpm(classifier: Logits) -> Logits:
    """The classifier of x_t = x / sqrt(1 + sigma^2): what one without time is shown in a DDPM, (x, sigma) -> (B, K).

    The paper's model holds samples in these coordinates, whose size does not grow with the noise; a time-independent
    classifier given x itself sees inputs of any size, a harder fate than the paper's.
    """
    return lambda x, sigma: classifier(x * (1 + expand_sigma(sigma, x) ** 2).rsqrt(), sigma)


def accuracy(
    classifier: Logits, images: Tensor, labels: Tensor, sigmas: Sequence[float] | Tensor, noise: Noise
) -> list[Count]:
    """How many of the images (N, *S), noised to each of `sigmas` (L,), are given their label (N,): L counts of N."""
    require_eval(classifier)
    counts = []
    for sigma in torch.as_tensor(sigmas).to(images):
        x = add_noise(images, sigma, noise)
        with torch.no_grad():
            said = torch.cat([classifier(rows, sigma).argmax(1) for rows in x.split(_ROWS)])
        counts.append(Count(int((said == labels.to(said.device)).sum()), len(labels)))
    return counts


def bayes_direction(
    model: Denoiser,
    conditionals: Sequence[Denoiser] | Mapping[int, Denoiser],
    labels: Tensor,
    x: Tensor,
    sigma: float | Tensor,
) -> Tensor:
    """The exact grad_x log p(y | x, sigma), (B, *S), where the denoisers of the whole and of K classes are known.

    By Bayes' rule it is the score of the class minus that of all: (D_y - D) / sigma^2; conditionals[y] is D_y and
    labels (B,). From differences of denoisers it stays exact where the posterior underflows.
    """
    level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
    exact = torch.empty_like(x)
    for label in labels.unique().tolist():
        rows = labels == label
        exact[rows] = conditionals[label](x[rows], level[rows])
    return (exact - model(x, level)) / expand_sigma(level, x) ** 2


class Agreement(NamedTuple):
    """How a learned direction compares with the exact one: the mean cosine over the samples whose exact one is not 0;
    the same weighted by its length, so by how much guidance moves them; and the ratio of their root mean squares (1 is
    right, more overshoots)."""

    cosine: float
    weighted: float
    length: float


def agreement(learned: Tensor, exact: Tensor) -> Agreement:
    """Agreement of directions (B, *S) with the exact ones of the same shape; NaN if all of these are 0."""
    learned, exact = learned.flatten(1).double(), exact.flatten(1).double()
    weight = exact.norm(dim=1)
    cosine = (learned * exact).sum(1) / (learned.norm(dim=1) * weight)
    cosine = cosine.nan_to_num(0.0)  # a learned direction of 0 agrees with none; an exact one counts in neither mean
    weighted = (weight * cosine).sum() / weight.sum()
    return Agreement(float(cosine[weight > 0].mean()), float(weighted), float(learned.norm() / weight.norm()))


def agreement_on_points(
    classifier: Logits, images: Tensor, labels: Tensor, sigmas: Sequence[float] | Tensor, noise: Noise, n: int = 200
) -> list[Agreement]:
    """Agreement of a classifier's guidance with the exact one at each of `sigmas` (L,), if the data are a finite set.

    images (N, *S) with labels (N,) are all there is, so the denoisers of the whole set and of each class are closed
    forms (`analytic.Empirical`) and so is the direction between them. Asked at n of the images, noised, each for the
    label of another of them: the attack wants any label anywhere, and at small sigma an image's own gives no direction.
    """
    whole, found = Empirical(images), labels.unique()
    classes = dict(zip(found.tolist(), (Empirical(images[labels == label]) for label in found), strict=True))
    rows = torch.arange(0, len(images), max(1, len(images) // n), device=images.device)[:n]
    wanted, result = labels[rows].roll(1), []
    for sigma in torch.as_tensor(sigmas).to(images):
        x = add_noise(images[rows], sigma, noise)
        exact = bayes_direction(whole, classes, wanted, x, sigma)
        result.append(agreement(gradient(log_p(classifier, wanted), x, sigma), exact))
    return result


def require_eval(classifier: Logits) -> None:
    """Raise Refused for a network in training mode, in which batch norm makes each row depend on all; any shape."""
    if getattr(classifier, "training", False):
        raise Refused("the classifier is in training mode: call its eval() first")
