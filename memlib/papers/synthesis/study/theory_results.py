"""What the theory of the appendix comes to when it is measured: R1, R3 and R13, in plain tensors and numbers."""

from dataclasses import dataclass

from torch import Tensor

Interval = tuple[float, tuple[float, float]]
"""A mean and its 95 % interval."""


@dataclass(frozen=True)
class Kernel:
    """R1: two Gaussians on a line under a Gaussian kernel, and two of equal mean."""

    exact: float  # MMD^2 in closed form
    estimates: Tensor  # (R,) unbiased, each from fresh draws
    biased: Tensor  # (R,) from the same draws, with the pairs of a point with itself
    grid: Tensor  # (G,) points of the line
    densities: Tensor  # (2, G) of the target and of the synthetic law
    witness: Tensor  # (G,) the normalised mu_T - mu_S
    reached: float  # the difference of expectations of the witness, by quadrature, over |mu_T - mu_S|
    best: float  # the largest of any function of norm 1 that is a sum of kernels at some points, over the same
    others: Tensor  # (K,) those of random functions of norm 1, over the same
    equal_means: dict[str, Tensor]  # (R,) MMD^2 of two laws of equal mean, by kernel


@dataclass(frozen=True)
class Gap:
    """R3: what a classifier of a synthetic set loses on fresh data, and what the bound says of it.

    `gaps` and `errors` are by loss, "0/1" and "squashed", then by name; intervals run over pairs of pipelines and over
    images.
    """

    gaps: dict[str, dict[str, Interval]]  # "train to fresh synthetic", "train to real", "fresh synthetic to real"
    errors: dict[str, dict[str, float]]  # mean loss: "train", "fresh synthetic", "real"
    weights: int  # of a classifier
    examples: int  # |S|
    delta: float
    printed: float  # eq. 13 for the classifier
    sharp: float  # eq. 14, with the 2
    rules: int  # of the small class
    small_printed: float
    small_sharp: float
    largest: Tensor  # (draws,) the largest Test - Train of the small class in each draw of S


@dataclass(frozen=True)
class Bound:
    """R13: the variational bound less the exact -log p, in nats, on a mixture of Gaussians on a line."""

    levels: tuple[int, ...]  # numbers of levels T
    gaps: Tensor  # (levels, N): bound with the exact denoiser minus -log q(x0), by T and point
    networks: Tensor  # (E,): mean bound of each network minus -log q(x0), over points of its own
    slack: Tensor  # (E,): mean bound of each network minus -log p(x0) of its own chain, over the same points
    network_levels: tuple[int, int]  # T of `networks`, and of `slack`, where the chain can be integrated
