"""Toy Gaussian mixtures: what three papers claim, held against closed forms.

`closed_forms` has the formulas of the papers, `toys` the data and the networks; the experiment is `study`.
"""

from memlib.papers.gaussian.closed_forms import kl_to_points, obtuse_optimum
from memlib.papers.gaussian.toys import forget, mixture, retain, toy_network, unlearning_weight

__all__ = [
    "forget",
    "kl_to_points",
    "mixture",
    "obtuse_optimum",
    "retain",
    "unlearning_weight",
    "toy_network",
]
