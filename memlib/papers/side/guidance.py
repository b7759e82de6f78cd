"""The gradient of a classifier, grad_x log p(y | x, sigma): for `denoiser.guided`, and tested at every noise level."""

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
from memlib.random import to_device

Logits = Callable[[Tensor, Tensor], Tensor]
"""A classifier of noisy samples: (x, sigma) -> logits (B, K); x (B, *S), sigma () or (B,)."""

_ROWS = 1024  # images classified at once where no gradient is wanted


def log_p(classifier: Logits, labels: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """log p(label | x, sigma) as a function (x, sigma) -> (B,), for `denoiser.guided`.

    Arguments:
        classifier: (x, sigma) -> logits (B, K).
        labels: one for each sample, (B,).

    Raises:
        Refused: for a classifier in training mode, in which batch norm makes every sample depend on all others.
    """
    require_eval(classifier)

    def value(x: Tensor, sigma: Tensor) -> Tensor:
        return -cross_entropy(classifier(x, sigma), to_device(labels, x.device), reduction="none")

    return value


def as_ddpm(classifier: Logits) -> Logits:
    """The classifier applied to x_t = x / sqrt(1 + sigma^2), the input that a DDPM gives it; (x, sigma) -> (B, K).

    The paper's model keeps samples in these coordinates, whose size does not grow with the noise. A time-independent
    classifier applied to x itself would see inputs of any size, which is harder than in the paper.
    """
    return lambda x, sigma: classifier(x * (1 + expand_sigma(sigma, x) ** 2).rsqrt(), sigma)


def accuracy(
    classifier: Logits, images: Tensor, labels: Tensor, sigmas: Sequence[float] | Tensor, noise: Noise
) -> list[Count]:
    """How many of the images (N, *S), noised to each level, the classifier labels correctly.

    Arguments:
        labels: the true labels, (N,).
        sigmas: noise levels, (L,).

    Returns:
        L counts out of N.

    Raises:
        Refused: for a classifier in training mode.
    """
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
    """The exact grad_x log p(y | x, sigma), where the denoisers of all data and of each of K classes are known.

    By Bayes' rule it is the score of the class minus the score of all data, (D_y - D) / sigma^2. As a difference of
    denoisers it stays exact where the posterior underflows.

    Arguments:
        model: the denoiser D of all data.
        conditionals: the denoisers D_y, by label.
        labels: one for each sample, (B,).
        x: samples (B, *S) at noise level `sigma`, a float, () or (B,).

    Returns:
        Directions (B, *S).
    """
    level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
    exact = torch.empty_like(x)
    for label in labels.unique().tolist():
        rows = labels == label
        exact[rows] = conditionals[label](x[rows], level[rows])
    return (exact - model(x, level)) / expand_sigma(level, x) ** 2


class Agreement(NamedTuple):
    """How learned directions compare with exact ones.

    `cosine` is the mean over samples whose exact direction is not 0. `weighted` weights it by the length of the exact
    direction, that is by how far guidance moves the sample. `length` is the ratio of the root mean squares: 1 is right,
    more overshoots.
    """

    cosine: float
    weighted: float
    length: float


def agreement(learned: Tensor, exact: Tensor) -> Agreement:
    """Compare directions (B, *S) with exact ones (B, *S). NaN if all exact ones are 0."""
    learned, exact = learned.flatten(1).double(), exact.flatten(1).double()
    weight = exact.norm(dim=1)
    cosine = (learned * exact).sum(1) / (learned.norm(dim=1) * weight)
    cosine = cosine.nan_to_num(0.0)  # a learned direction of 0 agrees with none; an exact one counts in neither mean
    weighted = (weight * cosine).sum() / weight.sum()
    return Agreement(float(cosine[weight > 0].mean()), float(weighted), float(learned.norm() / weight.norm()))


def agreement_on_points(
    classifier: Logits, images: Tensor, labels: Tensor, sigmas: Sequence[float] | Tensor, noise: Noise, n: int = 200
) -> list[Agreement]:
    """Compare a classifier's guidance with the exact one at each noise level, where the data are a finite set.

    Then the denoisers of the whole set and of each class are closed forms (`analytic.Empirical`), and so is the
    direction of Bayes' rule. It is computed at n of the images, noised, each guided to the label of another: an attack
    asks for any label anywhere, and at small sigma an image's own label gives no direction.

    Arguments:
        images: the finite set, (N, *S).
        labels: of the images, (N,).
        sigmas: noise levels, (L,).
        n: how many of the images are compared.

    Returns:
        One `Agreement` for each level.
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
