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
    rates: Annotated[list[float], Between(1e-9, 100.0)] = _list(1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 1e-2)  # eta, ascending
    decisive: Annotated[float, Between(1e-9, 100.0)] = 1e-4  # the rate that decides L1
    gap_rate: Annotated[float, Between(1e-9, 100.0)] = 3e-4  # the rate at which the gaps of the points are varied
    n_levels: Annotated[int, Between(4, 50)] = 5  # noise levels, one network each, from sigma / mu = 4 down to `lowest`
    lowest: Annotated[float, Between(0.01, 1.0)] = 0.25  # the lowest noise level sigma / mu, in spacings of the points
    width: Annotated[int, Between(4, 10**4)] = 128  # units m of a network
    steps: Annotated[int, Between(64, 10**7)] = 3600  # a third up to the rate, a third at it, a third down
    batch: Annotated[int, Between(1, 10**5)] = 32  # noisy points in a step
    start: Annotated[float, Between(0.0, 1e4)] = 24.0  # deviation of the initial output weights, times sigma^2
    bound: Annotated[float, Between(1e-3, 1e6)] = 100.0  # A, the largest output weight, times sigma^2
    # The edge of stability.
    edge_steps: Annotated[int, Between(8, 10**6)] = 3000  # full-batch steps to a minimum that memorizes
    sharpness_at: Annotated[list[int], Between(1, 10**6)] = _list(10, 30, 100, 300, 600, 1000, 1500, 2000)  # steps
    # Higher dimension.
    dims: Annotated[list[int], Between(1, 1000)] = _list(1, 2, 8, 32)  # dimensions of the data
    dim_width: Annotated[int, Between(4, 10**4)] = 128  # units of these networks
    dim_steps: Annotated[int, Between(64, 10**7)] = 1500  # steps, as `steps`
    # Digits.
    image_rates: Annotated[list[float], Between(1e-7, 10.0)] = _list(1e-3, 1e-2, 3e-2, 0.1)  # Adam's, ascending
    sgd_rates: Annotated[list[float], Between(1e-7, 100.0)] = _list(0.025, 0.2)  # plain descent's, ascending
    image_steps: Annotated[int, Between(16, 10**6)] = 640  # optimiser steps of a network on digits
    image_batch: Annotated[int, Between(1, 10**5)] = 64  # noisy digits in a step
    image_sizes: Annotated[list[int], Between(2, 250)] = _list(4, 8)  # training images, ascending
    watched: Annotated[int, Between(2, 250)] = 8  # of these sizes the one that is looked at along training
    choosing: Annotated[int, Between(1, 20)] = 1  # models that choose the rate at which most is memorized
    testing: Annotated[int, Between(1, 20)] = 2  # models that test it


_WIDE = {
    "image_rates": [1e-3, 3e-3, 1e-2, 2e-2, 4e-2, 8e-2, 0.16, 0.3],
    "sgd_rates": [3e-3, 6e-3, 0.012, 0.025, 0.05, 0.1, 0.2, 0.4],
    "image_sizes": [4, 8, 16],
    "choosing": 3,
    "testing": 5,
}
_LARGE = replace(
    Settings(),
    **{"n_runs": 32, "n_levels": 6, "steps": 45_000, "width": 256, "dim_width": 512, "dim_steps": 30_000},
    **{**_WIDE, "image_sizes": [8, 16, 32, 64, 128], "watched": 32, "image_steps": 40_000, "image_batch": 256},
)

SCALES: dict[str, Settings] = {
    "fast": Settings(),
    "book": replace(
        Settings(),
        **{"n_runs": 16, "n_levels": 6, "steps": 12_000, "edge_steps": 10_000, "dim_steps": 4000},
        **{**_WIDE, "image_steps": 2400, "image_batch": 128},
    ),
    "gpu": _LARGE,
    "paper": _LARGE,  # the slides state no settings: what one GPU does in minutes
}


def check(settings: Settings) -> None:
    """Refuse settings that fit one by one and not together, before anything is trained."""
    least = {"rates": 4, "sharpness_at": 3, "dims": 1, "image_rates": 2, "sgd_rates": 1, "image_sizes": 2}
    for name, count in least.items():
        values = getattr(settings, name)
        if len(values) < count or any(a >= b for a, b in zip(values, values[1:], strict=False)):
            raise Refused(f"parameter {name} is {values!r}: give at least {count} values, each above the one before")
    if settings.decisive not in settings.rates[1:]:
        raise Refused(f"the decisive rate is {settings.decisive:g}: give one of the rates above the smallest")
    if settings.watched not in settings.image_sizes:
        raise Refused(f"{settings.watched} digits are to be watched: give one of the image sizes")
