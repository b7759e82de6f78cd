"""The settings of the learning-rate study, one value of them a scale.

The slides of Wu et al. 2025 give no settings for their experiments. All values are therefore this book's choice; they
were fixed on the explore half.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from memlib.errors import Refused
from memlib.settings import Between


def _list(*values):
    return field(default_factory=lambda: list(values))


@dataclass(frozen=True)
class Settings:
    """What the study is run with; the defaults are those of the scale `fast`."""

    half: Literal["explore", "report"] = "report"  # settings are chosen on explore, numbers are reported from report
    # The line: two-layer networks on a few points, one network for each rate, run and noise level.
    n_points: Annotated[int, Between(2, 64)] = 4  # training points, about 1 apart
    n_runs: Annotated[int, Between(2, 500)] = 8  # runs of each arm: other points, initial weights and batches
    rates: Annotated[list[float], Between(1e-9, 100.0)] = _list(1e-5, 3e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # eta, ascending
    n_levels: Annotated[int, Between(4, 50)] = 6  # noise levels, one network each, from sigma / mu = 4 down to `lowest`
    lowest: Annotated[float, Between(0.01, 1.0)] = 0.25  # the lowest noise level sigma / mu, in spacings of the points
    width: Annotated[int, Between(4, 10**4)] = 128  # units m of a network
    steps: Annotated[int, Between(64, 10**7)] = 6000  # mini-batch steps; full batch takes half as many
    batch: Annotated[int, Between(1, 10**5)] = 32  # noisy points in a step
    start: Annotated[float, Between(0.0, 1e4)] = 24.0  # deviation of the initial output weights, times sigma^2
    bound: Annotated[float, Between(1e-3, 1e6)] = 100.0  # A, the largest output weight, times sigma^2
    # The edge of stability.
    edge_steps: Annotated[int, Between(8, 10**6)] = 3000  # tiny full-batch steps to a minimum that memorizes
    sharpness_at: Annotated[list[int], Between(1, 10**6)] = _list(10, 30, 100, 300, 600, 1000, 1500, 2000)  # steps
    # Higher dimension.
    dims: Annotated[list[int], Between(1, 1000)] = _list(1, 2, 8, 32)  # dimensions of the data
    # Digits, with Adam.
    image_rates: Annotated[list[float], Between(1e-7, 1.0)] = _list(3e-4, 2e-3, 1e-2, 3e-2)  # Adam's rates, ascending
    image_steps: Annotated[int, Between(8, 10**6)] = 500  # optimiser steps of a network on digits
    image_sizes: Annotated[list[int], Between(2, 250)] = _list(2, 32)  # the largest memorized set is sought in between
    image_bracket: Annotated[float, Between(1.01, 10.0)] = 2.0  # until it is known within this factor
    image_batches: Annotated[list[int], Between(1, 10**5)] = _list(64)  # batch sizes, at the second of the image rates
    walk_images: Annotated[int, Between(2, 250)] = 16  # training images of the frontier, trained for twice the steps
    schedules: list[Literal["constant", "cosine"]] = _list("constant")  # of the rate on the frontier
    n_models: Annotated[int, Between(1, 20)] = 1  # image networks of each arm


_WIDE = {"image_batches": [16, 64, 256], "schedules": ["constant", "cosine"], "walk_images": 32}
_LARGE = replace(
    Settings(),
    **{"n_runs": 32, "steps": 40_000, "width": 256},
    **{"image_steps": 3000, "image_sizes": [2, 128], "image_bracket": 1.2, "n_models": 3, **_WIDE},
)

SCALES: dict[str, Settings] = {
    "fast": Settings(),
    "book": replace(
        Settings(),
        **{"n_runs": 16, "steps": 20_000},
        **{"image_steps": 1000, "image_sizes": [2, 64], "image_bracket": 1.4, "n_models": 2, **_WIDE},
    ),
    "gpu": _LARGE,
    "paper": _LARGE,  # the slides state no settings: what one GPU does in minutes
}


def check(settings: Settings) -> None:
    """Refuse settings that fit one by one and not together, before anything is trained."""
    for name, least in {"rates": 4, "sharpness_at": 3, "dims": 1, "image_rates": 2, "image_sizes": 2}.items():
        values = getattr(settings, name)
        if len(values) < least or any(a >= b for a, b in zip(values, values[1:], strict=False)):
            raise Refused(f"parameter {name} is {values!r}: give at least {least} values, each above the one before")
    if len(settings.image_sizes) > 2:
        raise Refused(
            f"parameter image_sizes is {settings.image_sizes!r}: give two sizes, the smallest and the largest"
        )
    if not (settings.schedules and settings.schedules[0] == "constant" and settings.image_batches):
        raise Refused("the frontier needs the constant schedule first, and the digits at least one batch size")
    if len(set(settings.schedules)) < len(settings.schedules):
        raise Refused(f"parameter schedules is {settings.schedules!r}: name each schedule once")
