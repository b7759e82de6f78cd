"""Learning rate against memorization: two-layer score networks, many trained at once, and how sharp their minima are.

`fixed_level` holds one noise level, the score s* that memorizes, and the theorem's quantities; `shallow` and `deeper`
hold the networks, `descent` trains a whole sweep, `curvature` measures sharpness against the edge 2 / eta, `sampling`
turns networks into a sampler, and `study` is the experiment.
"""

from memlib.papers.learning_rate.curvature import sharpness
from memlib.papers.learning_rate.deeper import Deep, deep
from memlib.papers.learning_rate.descent import Progress, descend, ramp
from memlib.papers.learning_rate.fixed_level import (
    NoisyBatch,
    Problem,
    density,
    excess_risk,
    min_distance,
    minibatches,
    optimal_score,
    problem,
    quadrature,
    rate_threshold,
    risk,
    risk_bound,
    zero_score_risk,
)
from memlib.papers.learning_rate.sampling import multilevel_denoiser
from memlib.papers.learning_rate.shallow import TwoLayer, two_layer

__all__ = [
    "NoisyBatch",
    "Deep",
    "Progress",
    "Problem",
    "TwoLayer",
    "zero_score_risk",
    "deep",
    "density",
    "descend",
    "excess_risk",
    "multilevel_denoiser",
    "minibatches",
    "optimal_score",
    "quadrature",
    "ramp",
    "rate_threshold",
    "risk",
    "risk_bound",
    "min_distance",
    "sharpness",
    "problem",
    "two_layer",
]
