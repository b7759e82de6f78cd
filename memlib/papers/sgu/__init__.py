"""Unlearning a score: retained data fitted, forget data turned away from. SGU.

`objective` is the loss of two batches, for training from scratch and for fine-tuning alike; `optima` holds what it
leads to, in closed form, for densities that are known.
"""

from memlib.papers.sgu.objective import Draw, ForgetLoss, Weight, mix, objective, ones, rows
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
