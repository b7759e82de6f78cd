"""What every group of the experiment starts from: the runs and their points, and how a sweep is planned."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memlib.papers.learning_rate.fixed_level import rate_threshold
from memlib.papers.learning_rate.study import digits
from memlib.papers.learning_rate.study.line import Network, at_level, members, noise_levels, row, sweep
from memlib.papers.learning_rate.study.settings import Settings
from memlib.run import Run

_DEAL = 29  # of the digits: another than in the first opening of the report half

Calls = dict[str, tuple[str, Callable[..., Any], tuple]]  # by name: the artefact's name, a function, its inputs
Done = Mapping[str, Any]  # what the calls returned, by name


@dataclass(frozen=True)
class Inputs:
    """What the calls are made of: the runs' keys (R,), their points (R, n, 1), noise levels (K,), and the digits."""

    settings: Settings
    first: int
    keys: Tensor
    points: Tensor
    levels: Tensor
    network: Network
    images: digits.Split | None

    @property
    def description(self) -> str:
        """The data, in a sentence."""
        last = int(self.keys[-1])
        line = f"line: {len(self.keys)} runs of {self.settings.n_points} points, keys {self.first} to {last}"
        return line if self.images is None else f"{line}; {self.images.description}"


def inputs_of(settings: Settings, run: Run, with_images: bool = True) -> Inputs:
    """The inputs of these settings. The explore and the report half never share a draw."""
    first = 1000 * run.seed + (700 if settings.half == "report" else 0)
    keys = first + torch.arange(settings.n_runs)
    points = row(keys, settings.n_points).to(run.device)
    levels = noise_levels(settings.lowest, settings.n_levels)
    network = Network(settings.width, settings.start, settings.bound)
    images = digits.split(settings.half, run.seed + _DEAL, run.device) if with_images else None
    return Inputs(settings, first, keys, points, levels, network, images)


def planned(
    given: Inputs,
    rates: Tensor,
    steps: int,
    *,
    points: Tensor | None = None,
    levels: Tensor | None = None,
    network: Network | None = None,
    batch: int | None = None,
    abrupt: bool = False,
    with_sharpness: bool = False,
) -> tuple[str, Callable[..., Any], tuple]:
    """A sweep over the runs at the lowest level, but for what is given. Rates expand to (E, R, K)."""
    points = given.points if points is None else points.to(given.points)
    levels = given.levels[-1:] if levels is None else levels
    batch = given.settings.batch if batch is None else batch
    network = network or given.network
    inputs = (points, given.keys, rates, levels, network, steps, batch, abrupt, with_sharpness)
    return "sweep", sweep, inputs


def column(rates: list[float]) -> Tensor:
    """Rates (E,) for all runs and levels, (E, 1, 1)."""
    return torch.tensor(rates)[:, None, None]


def threshold(given: Inputs, points: Tensor, levels: Tensor) -> Tensor:
    """The theorem's threshold of each run and level, (R, K), for points (R, n, 1)."""
    r, k = members(len(points), len(levels))
    return rate_threshold(at_level(points[r], levels[k])).view(len(points), -1)
