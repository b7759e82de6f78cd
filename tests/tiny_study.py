"""A study in miniature, for the tests of what runs studies and chapters."""

import os
import signal
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from memlib.claim import Claim
from memlib.settings import Between

CHAPTER = "07_tiny"
GROUPS = {"points": ("X1",), "spread": ("X2", "X3")}


@dataclass(frozen=True)
class Settings:
    """Of the tiny study."""

    n_train: Annotated[int, Between(2, 100)] = 8  # points to draw
    weight: Annotated[float, Between(0, 50)] = 2.0  # guidance weight λ
    levels: Annotated[list[float], Between(0, 10)] = (1.0,)  # noise levels
    half: Literal["explore", "report"] = "report"  # of the data
    limit: int | None = None  # images at most


SCALES = {"fast": Settings(), "book": Settings(n_train=16)}


@dataclass(frozen=True)
class Results:
    """Of the tiny study: points (n, 2), and their standard deviation times the weight."""

    points: Tensor | None = None
    spread: float | None = None


def draw(n: int, scale: float) -> Tensor:
    """Points (n, 2)."""
    return scale * torch.randn(n, 2)


def killed(n: int) -> Tensor:
    """Nothing: the process that draws them is ended as by the system."""
    os.kill(os.getpid(), signal.SIGKILL)
    return draw(n, 1.0)


def process(part: int) -> int:
    """The number of the process that works on a part."""
    return os.getpid()


def run(settings, run, groups=()):
    """All groups, or those named."""
    points = run.cached("points", draw, settings.n_train, 1.0)
    chosen = groups or tuple(GROUPS)
    spread = float(points.std()) * settings.weight if "spread" in chosen else None
    return Results(points if "points" in chosen else None, spread)


def verdicts(results):
    """X1 from the points, X2 and X3 from their spread."""
    found = []
    if results.points is not None:
        found.append(Claim("X1", "reproduced", results.points.std(), len(results.points), (0.5, 1.5)))
    if results.spread is not None:
        found += [Claim(name, "trend only", results.spread, 1) for name in ("X2", "X3")]
    return found
