"""Learning rate against memorization: two-layer score networks, many trained at once, and how sharp their minima are.

`problem` holds one noise level, the score s* that remembers and the theorem's quantities; `shallow` and `deeper` the
networks, `descent` the training of a whole sweep, `curvature` the edge 2 / eta, `sampling` the way to samples.
"""

from memlib.stability.curvature import sharpness
from memlib.stability.deeper import Deep, deep
from memlib.stability.descent import Progress, descend
from memlib.stability.problem import (
    Batch,
    Task,
    ceiling,
    density,
    excess_risk,
    minibatches,
    optimal_score,
    quadrature,
    rate_threshold,
    risk,
    risk_bound,
    separation,
    task,
)
from memlib.stability.sampling import ladder
from memlib.stability.shallow import TwoLayer, two_layer

__all__ = [
    "Batch",
    "Deep",
    "Progress",
    "Task",
    "TwoLayer",
    "ceiling",
    "deep",
    "density",
    "descend",
    "excess_risk",
    "ladder",
    "minibatches",
    "optimal_score",
    "quadrature",
    "rate_threshold",
    "risk",
    "risk_bound",
    "separation",
    "sharpness",
    "task",
    "two_layer",
]
