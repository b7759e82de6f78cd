"""The Hoeffding bound of a finite class (Real-Fake eq. 13 and 14), and a class small enough for it to say something."""

import math

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.shapes import Bool, Float, Shaped


def hoeffding(log_size: float, n: int, delta: float, *, printed: bool = False) -> float:
    """The t that no rule of a finite class exceeds by Test - Train, with probability 1 - delta over n draws.

    |F| exp(-2 n t^2) = delta gives t = sqrt((log |F| + log 1/delta) / 2n), eq. 14. Eq. 13 leaves the 2 out, which is on
    the safe side. The loss must lie in [0, 1]. A t of 1 or more says nothing.

    Arguments:
        log_size: log |F|, in nats.
        n: independent examples.
        delta: the probability of more.
        printed: eq. 13, without the 2.

    Raises:
        Refused: unless log |F| >= 0, n >= 1 and 0 < delta < 1.
    """
    if not (log_size >= 0 and n >= 1 and 0 < delta < 1):
        raise Refused(f"a bound takes log |F| >= 0, n >= 1 and 0 < delta < 1, not {log_size}, {n} and {delta}")
    return math.sqrt((log_size + math.log(1 / delta)) / (n if printed else 2 * n))


def log_size_of(weights: int, bits: int = 32) -> float:
    """log |F| of the networks with this many weights, each a number of `bits` bits, in nats."""
    return weights * bits * math.log(2)


def linear_rules(features: int, levels: int) -> Float[Tensor, "f k"]:
    """All linear rules on K features whose weights and threshold are among `levels` numbers from -1 to 1, (F, K + 1).

    F = levels^(K + 1). The class is fixed before any example is seen.
    """
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)
    return torch.cartesian_prod(*[values] * (features + 1))


def mistakes(
    rules: Float[Tensor, "f k"], features: Float[Tensor, "n features"], positive: Bool[Tensor, " n"]
) -> Bool[Tensor, "f n"]:
    """Which of N examples (N, K) each rule (F, K + 1) names wrongly, (F, N): w x > b says positive."""
    says_positive = (features.double() @ rules[:, :-1].T > rules[:, -1]).T
    return says_positive != positive


def largest_gaps(
    wrong: Shaped[Tensor, "f n"], size: int, draws: int, generator: torch.Generator
) -> Float[Tensor, " {draws}"]:
    """The largest Test - Train of a class in each of `draws` sets of `size` examples, (draws,).

    The N examples of `wrong` (F, N), losses in [0, 1], are the whole law D, as in eq. 13. A set S is drawn from it with
    replacement.
    """
    losses = wrong.double()
    chosen = torch.randint(losses.shape[1], (draws, size), generator=generator)
    counts = torch.zeros(draws, losses.shape[1], dtype=torch.float64).scatter_add_(
        1, chosen, torch.ones(chosen.shape, dtype=torch.float64)
    )
    train = counts.to(losses.device) @ losses.T / size  # (draws, F)
    return (losses.mean(1) - train).amax(1).cpu()
