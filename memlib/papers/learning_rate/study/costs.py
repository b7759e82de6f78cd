"""What the study would cost, stage by stage, from its settings: the calls are planned as for a run, and not made."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from memlib.cost import TRAINING, Work
from memlib.papers.learning_rate.study import digits, dimensions, edge, line, relaxations
from memlib.papers.learning_rate.study.experiment import GROUPS, calls_of
from memlib.papers.learning_rate.study.inputs import inputs_of
from memlib.papers.learning_rate.study.settings import Settings, check
from memlib.run import Run

_NODES = 33  # of the quadrature, for each training point
_FIXED, _FREE = 8, 10  # operations of a gradient for each unit, coordinate and point: w1 stays, or is free


def work(settings: Settings) -> list[Work]:
    """A stage for each group of claims; what two groups share is in the first. Looks along training are left out.

    Networks are many and small: a processor does far fewer operations a second here than in large products. Nothing of
    note is left on disk.

    Raises:
        Refused: for settings that do not fit together.
    """
    check(settings)
    given, seen, found = inputs_of(settings, Run("cost", device=torch.device("cpu"))), set(), []
    for group in GROUPS:
        calls = {name: call for name, call in calls_of(given, [group]).items() if name not in seen}
        seen |= set(calls)
        if calls:
            found.append(Work(group, sum(operations_of(make, inputs) for _, make, inputs in calls.values())))
    return found


def operations_of(make: Callable[..., Any], inputs: Sequence[Any]) -> float:
    """Operations of the training in `make(*inputs)`, one of the study's calls, a scalar."""
    return _OPERATIONS[make](*inputs)


def _line(members: int, width: int, steps: int, rows: int, each: int = _FIXED) -> float:
    """Of so many two-layer networks on a line, with `rows` points in a step."""
    return float(each) * members * width * steps * rows


def _sweep(
    points: Tensor, keys: Tensor, rates: Tensor, levels: Tensor, network: line.Network, steps: int, batch: int, *_: bool
) -> float:
    members = len(rates) * len(points) * len(levels)
    done = 2 * (steps // 3) + 2 * (steps - 2 * (steps // 3))  # the last third is done by two copies
    return _line(members, network.width, done, batch or _NODES * points.shape[1])


def _leaving(points: Tensor, keys: Tensor, level: Tensor, network: line.Network, steps: int, batch: int) -> float:
    runs, rows, pushed = len(points), _NODES * points.shape[1], len(edge.RHO) * len(points)
    onward, few = edge.ONWARD, edge.PUSHED
    there = _line(runs, network.width, steps, rows)
    return there + _line(pushed, network.width, onward, rows) + _line(pushed, network.width, few, batch)


def _sharpening(
    optimiser: str, points: Tensor, keys: Tensor, network: line.Network, batch: int, looks: Sequence[int]
) -> float:
    members = len(edge.RATES[optimiser]) * len(points)
    return _line(members, network.width, looks[-1], batch or _NODES * points.shape[1])


def _dimension(d: int, runs: int, n_points: int, first: int, width: int, steps: int, like: Tensor) -> float:
    members = runs * (len(dimensions.LEVELS) + 1)  # and the control
    return _line(members, d * width, steps, dimensions.BATCH, _FREE)


def _relaxed(
    kind: str, points: Tensor, keys: Tensor, level: Tensor, network: line.Network, steps: int, batch: int
) -> float:
    members = len(relaxations.RATES[kind]) * len(points)
    if kind == "two hidden layers":
        width = relaxations.DEEP_WIDTH
        return TRAINING * 2.0 * (width**2 + 2 * width) * members * steps * batch
    return _line(members, relaxations.WIDTH, steps, batch, _FREE if kind == "free first layer" else _FIXED)


def _digits(
    images: digits.Split, optimiser: str, rates: list[float], seeds: list[int], n: int, steps: int, batch: int,
    anneal_to: float | None = None,
) -> float:  # fmt: skip
    inner, dim = digits.WIDTH, images.members.shape[1]
    forward = 2.0 * inner * ((dim + digits.CODES) + (digits.LAYERS - 1) * inner + dim)
    return TRAINING * forward * len(rates) * len(seeds) * steps * batch


_OPERATIONS: dict[Callable[..., Any], Callable[..., float]] = {
    line.sweep: _sweep,
    edge.leaving: _leaving,
    edge.sharpening: _sharpening,
    dimensions.in_dimension: _dimension,
    relaxations.relaxed: _relaxed,
    digits.trained: _digits,
}
