"""What the study measured: one field for each group of claims, tensors on the CPU with their axes named.

Axes: E learning rates, R runs, K noise levels from high to low. "Excess risk" is E(s - s*)^2 over R_n(0), so 0 is the
score that memorizes and the zero function lies just below 1.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Pictures:
    """Run 0 in full, for the figure that moves: score curves over a line of Q points, and N samples on their way."""

    x: Tensor  # (Q,), in the coordinates of the data, x = y / mu
    optimal: Tensor  # sigma s* at each level, (K, Q)
    learnt: Tensor  # sigma s, (E, K, Q)
    samples: Tensor  # after each level, (E, K, N)
    training: Tensor  # the training points, (n,)


@dataclass(frozen=True)
class Memory:
    """Excess risk and memorized samples against the learning rate, at the lowest noise level (L1)."""

    rates: list[float]
    levels: list[float]  # sigma / mu, (K,)
    excess: Tensor  # mini-batch, at the end, (E, R)
    quarter: Tensor  # the same after a quarter of the steps, (E, R)
    full_batch: Tensor  # full batch, after half as many steps, (E, R)
    timed_rates: list[float]  # the rates whose equal eta x steps is at least four steps
    timed: Tensor  # excess risk there, (timed rates, R)
    fraction: Tensor  # samples that count as memorized, (E, R)
    exact: Tensor  # the same for samples of s* itself, (R,)
    truth: Tensor  # squared distance from the score of the uniform law, over R_n(0), (E, R)
    inside: dict[str, Tensor]  # fraction of units with their kink among the data, by arm, (E,)
    diverged: dict[str, Tensor]  # networks set aside, by arm, (E, R, K) bools
    threshold: Tensor  # the theorem's threshold on eta at the lowest level, (R,)
    pictures: Pictures


@dataclass(frozen=True)
class Smoothness:
    """Total variation of the slope of the learnt score and of s* (L6)."""

    rates: list[float]
    levels: list[float]
    rough: Tensor  # of the learnt score over that of s*, (E, R, K)
    star_levels: list[float]  # sigma / mu, each half of the one before at the end
    star: list[float]  # of s* for run 0


@dataclass(frozen=True)
class Factor:
    """Excess risk at eta = 1e-3 and above the threshold as one factor varies."""

    values: list[float]
    excess: Tensor  # (2, values, R)


@dataclass(frozen=True)
class Theorem:
    """What the theorem speaks about: excess risk above its threshold, and powers of its factors (L2)."""

    bound: float  # A sigma^2
    n_points: int
    rates: list[float]  # the smallest, 1e-3, and twice the largest threshold at the lowest level
    levels: list[float]  # sigma / mu
    relative: Tensor  # excess risk, (3, R, levels)
    factors: dict[str, Factor]  # "n", "Delta" and "A"


@dataclass(frozen=True)
class Gaps:
    """Excess risk against the smallest gap of two points (L5)."""

    spacing: Factor  # all points pulled apart
    pairs: Factor  # two pairs opened


@dataclass(frozen=True)
class Edge:
    """Who leaves a minimum at a multiple of the edge of stability, and sharpness along training (L3)."""

    rho: list[float]  # eta in units of 2 / (m lambda_max)
    rise: dict[str, Tensor]  # largest excess risk within a hundred steps over that of the start, by arm, (rho, R)
    rates: list[float]
    steps: list[int]
    sharpness: dict[str, Tensor]  # m lambda_max eta / 2 of a batch's Hessian, by arm, (steps, E, R)
    with_kinks: dict[str, Tensor]  # the same for the Hessian of the expected risk


@dataclass(frozen=True)
class Relaxation:
    """Excess risk at the lowest level under one change of the theorem's network; decides no claim."""

    rates: list[float]
    excess: Tensor  # (E, R)
    alive: Tensor  # (E, R)


@dataclass(frozen=True)
class Dimensions:
    """What is memorized and learnt in d dimensions, by arm: large weights at a small rate, small at a large (L4)."""

    dims: list[int]
    memorized: Tensor  # fraction of samples, (dims, arms, R)
    of_optimum: Tensor  # 1 - |s - s*|^2 / |s*|^2 at the lowest level, (dims, arms, R)
    of_truth: Tensor  # the same against the score of the law, (dims, arms, R)


@dataclass(frozen=True)
class Bracket:
    """Effective model memorization (EMM) of one arm: the largest set still memorized, the smallest that is not."""

    rate: float
    batch: int
    sizes: Tensor  # (models, 2); a second size of 0 means that none was found


@dataclass(frozen=True)
class Walk:
    """One learning rate on the frontier, at an eighth, a quarter, half and all of the steps."""

    rate: float
    schedule: str
    looks: Tensor  # memorized fraction, held-out loss a coordinate, squared Frechet distance: (models, 4, 3)


@dataclass(frozen=True)
class Digits:
    """Adam on digits: how large a set is memorized, and what copying costs in quality (L7)."""

    rates: list[float]
    batch: int  # of the comparison between rates
    smallest: int  # the smallest training set tried
    brackets: list[Bracket]
    walks: list[Walk]
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
