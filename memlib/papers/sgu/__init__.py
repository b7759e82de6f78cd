"""SGU: unlearning a score, by fitting it to retained data and turning it away from forget data.

`objective` is the loss, for training from scratch and for fine-tuning. `optima` are its minimisers in closed form, for
densities that are known. `study` is the experiment.
"""

from memlib.papers.sgu._objective import Draw, ForgetLoss, Weight, mix, objective, ones, rows
from memlib.papers.sgu.optima import Density, bounded_optimum, noise_moment, obtuse_optimum, orthogonal_optimum

__all__ = [
    "Density",
    "Draw",
    "ForgetLoss",
    "Weight",
    "bounded_optimum",
    "mix",
    "noise_moment",
    "objective",
    "obtuse_optimum",
    "ones",
    "orthogonal_optimum",
    "rows",
]
