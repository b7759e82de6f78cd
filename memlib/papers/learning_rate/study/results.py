"""What the study measured: one field for each group of claims, tensors on the CPU with their axes named.

Axes: E learning rates, R runs, K noise levels from high to low; three moments: initial, at the rate, annealed. "Excess
risk" is E(s - s*)^2 over R_n(0), so 0 is the score that memorizes and the zero function lies just below 1.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Pictures:
    """Run 0 at the rate, for the figure that moves: scores over a line of Q points, and N samples on their way."""

    x: Tensor  # (Q,), in the coordinates of the data, x = y / mu
    optimal: Tensor  # sigma s* at each level, (K, Q)
    learnt: Tensor  # sigma s, (E, K, Q)
    samples: Tensor  # after each level, (E, K, N)
    training: Tensor  # the training points, (n,)


@dataclass(frozen=True)
class Memory:
    """Excess risk and memorized samples at the learning rate and after annealing, at the lowest noise level (L1).

    Arms: "mini-batch" and "full batch" are brought slowly to the rate, "abrupt" (mini-batch) begins at it.
    """

    rates: list[float]
    decisive: float  # the rate that decides, one of `rates`
    levels: list[float]  # sigma / mu, (K,)
    excess: dict[str, Tensor]  # at three moments, by arm, (3, E, R)
    inside: dict[str, Tensor]  # fraction of units with their kink among the data, by arm, (3, E, R)
    sharp: dict[str, Tensor]  # m lambda_max in units of 2 / eta at the rate, by arm, (E, R)
    fraction: Tensor  # samples that count as memorized, at the rate and annealed, (2, E, R)
    exact: Tensor  # the same for samples of s* itself, (R,)
    truth: Tensor  # squared distance from the score of the uniform law at the rate, over R_n(0), (E, R)
    silent: float  # excess risk of the zero function at the lowest level, mean over runs
    diverged: dict[str, Tensor]  # networks set aside, by arm, (E, R, K) bools
    threshold: Tensor  # the theorem's threshold on eta at the lowest level, (R,)
    pictures: Pictures


@dataclass(frozen=True)
class Smoothness:
    """Total variation of the slope of the learnt score and of s* (L6)."""

    rates: list[float]
    levels: list[float]
    rough: Tensor  # of the learnt score over that of s*, at three moments, (3, E, R, K)
    inside: Tensor  # fraction of units with their kink among the data at the lowest level, at the rate, (E, R)
    star_levels: list[float]  # sigma / mu, each half of the one before at the end
    star: list[float]  # of s* for run 0


@dataclass(frozen=True)
class Factor:
    """Excess risk at the middle rate and at twice each network's own threshold, as one factor varies."""

    values: list[float]
    excess: Tensor  # (2, values, R)


@dataclass(frozen=True)
class Theorem:
    """What the theorem speaks about: excess risk at multiples of each network's own threshold (L2)."""

    bound: float  # A sigma^2
    n_points: int
    multiples: list[float]  # of the threshold of each run and level, ascending; the last lies above 1
    threshold: Tensor  # (R, levels)
    levels: list[float]  # sigma / mu
    relative: Tensor  # excess risk at the rate, (multiples, R, levels)
    silent: Tensor  # that of the zero function, (R, levels)
    sharp: Tensor  # m lambda_max in units of 2 / eta, (multiples, R, levels)
    factors: dict[str, Factor]  # "n", "Delta" and "A"


@dataclass(frozen=True)
class Gaps:
    """Excess risk over that of the zero function, so the fraction of s* that is missing, by the smallest gap (L5).

    "spacing": all points pulled apart; "pairs": two pairs opened.
    """

    rate: float
    control_rate: float
    spacings: list[float]
    openings: list[float]
    missing: dict[str, Tensor]  # at the rate, (values, R)
    control: dict[str, Tensor]  # at the control's rate, annealed, (values, R)


@dataclass(frozen=True)
class Leaving:
    """Minima that memorize, at multiples of their edge."""

    rho: list[float]  # eta in units of 2 / (m lambda_max)
    rise: dict[str, Tensor]  # largest excess risk within a hundred steps over that of the minimum, by arm, (rho, R)
    gradient: Tensor  # norm of the gradient at the minimum over that of the initial network, (R,)
    missing: Tensor  # fraction of s* missing at the minimum, (R,)
    ends: Tensor  # after a thousand full-batch steps: excess risk over the minimum's, sharpness over 2/eta, (2, rho, R)


@dataclass(frozen=True)
class Edge:
    """Who leaves a minimum at a multiple of the edge of stability, and sharpness along training (L3)."""

    leaving: Leaving
    rates: dict[str, list[float]]  # by optimiser
    settled: dict[str, list[float]]  # of these, the rates whose sharpness is asked where it settles
    steps: list[int]
    sharpness: dict[str, Tensor]  # of a batch's Hessian in units of the optimiser's edge, by arm, (steps, E, R)
    with_kinks: dict[str, Tensor]  # the same for the Hessian of the expected risk
    gradient: dict[str, Tensor]  # norm of the full gradient over that at the start, (steps, E, R)


@dataclass(frozen=True)
class Relaxation:
    """Excess risk at the lowest level under one change of the theorem's network; decides no claim."""

    rates: list[float]
    excess: Tensor  # (E, R)
    alive: Tensor  # (E, R)


@dataclass(frozen=True)
class Dimensions:
    """What one arm memorizes and learns in d dimensions, and two controls (L4). Fractions (dims, R)."""

    dims: list[int]
    memorized: Tensor  # of the samples
    exact: Tensor  # of samples of s* itself
    of_optimum: Tensor  # of s* at the lowest level: 1 - |s - s*|^2 / |the score of the law - s*|^2
    of_truth: Tensor  # of the score of the law: the same with the two exchanged
    control: Tensor  # of the score of the law, learnt by the same network from many points


@dataclass(frozen=True)
class Looks:
    """Networks on n digits at looks along training: rates E, models S, looks T.

    What is looked at, the last axis of `values` (E, S, T, 4): copied fraction of the samples, training loss and loss on
    held-out images (both of unit-variance targets, a coordinate), squared Frechet distance to held-out images.
    """

    name: str
    rates: list[float]
    n: int
    values: Tensor
    sharp: Tensor  # sharpness at the end in units of the optimiser's edge, (E, S)


@dataclass(frozen=True)
class Digits:
    """Digits: how large a set is memorized at each of Adam's rates, and what copying costs (L7).

    Models are named by seeds: the first `choosing` choose the rate at which the largest set is memorized, the others
    test it.
    """

    rates: list[float]
    sizes: list[int]
    choosing: int
    copied: Tensor  # fraction at the end of training, (sizes, E, S)
    steps: list[int]  # of the looks
    constant: Looks
    annealed: Looks
    sgd: Looks
    false_copies: tuple[int, int]  # held-out images that the rule for samples would count as copies, of how many


@dataclass(frozen=True)
class Results:
    """All groups; None where a group was not run."""

    description: str  # the data, in a sentence
    memory: Memory | None = None
    smoothness: Smoothness | None = None
    theorem: Theorem | None = None
    gaps: Gaps | None = None
    edge: Edge | None = None
    relaxations: dict[str, Relaxation] | None = None
    dimensions: Dimensions | None = None
    digits: Digits | None = None
