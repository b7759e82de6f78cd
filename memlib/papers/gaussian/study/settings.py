"""The settings of the Gaussian chapter, and their value at each scale."""

from dataclasses import dataclass
from typing import Annotated, Literal

from memlib.settings import Between


@dataclass(frozen=True)
class Settings:
    """What the experiment can be run with. The papers state no settings for their toys: all values are this book's."""

    n_points: Annotated[int, Between(3, 5000)] = 40  # training points of the memorizer
    n_samples: Annotated[int, Between(100, 10**6)] = 2000  # samples of each model
    n_draws: Annotated[int, Between(100, 10**8)] = 20_000  # Monte Carlo draws behind each value of the measure
    train_steps: Annotated[int, Between(10, 10**6)] = 1200  # optimiser steps of each network
    n_seeds: Annotated[int, Between(2, 50)] = 3  # independent training runs of each arm
    alpha: Annotated[float, Between(0.01, 1.0)] = (
        0.9  # fraction of the retained data in the unlearning loss, SGU eq. 11
    )
    n_labelled: Annotated[int, Between(100, 10**6)] = 3000  # points that the four labels divide
    n_extracted: Annotated[int, Between(600, 10**6)] = 8000  # samples whose distinct training points are counted
    n_tested: Annotated[int, Between(10, 10**5)] = 200  # points of each group whose likelihood is measured
    batch: Annotated[int, Between(8, 10**5)] = 256  # points of a training step, and as many forgotten ones
    width: Annotated[int, Between(4, 4096)] = 64  # units of each of the three hidden layers
    learning_rate: Annotated[float, Between(1e-6, 1.0)] = 4e-3  # of Adam, falling along half a cosine
    dtype: Literal["float32", "float64"] = "float64"  # of all arithmetic


_LARGE = Settings(n_samples=50_000, n_draws=10**6, train_steps=20_000, n_seeds=10)

SCALES = {
    "fast": Settings(),
    "book": Settings(n_samples=10_000, n_draws=200_000, train_steps=6000, n_seeds=5),
    "gpu": _LARGE,
    "paper": _LARGE,
}
