"""The shadows of each image on two sides: the models that saw it, and those that did not."""

import torch
from torch import Tensor

from memlib.errors import Refused

SAW, NOT = "that saw it", "that did not see it"


def checked(
    values: Tensor, shadows: Tensor, inside: Tensor | None, names: tuple[str, str] = ("values", "shadows")
) -> tuple[Tensor, Tensor]:
    """Values (N,) and shadows (M, N) in float64, or Refused for what does not fit or is not finite."""
    if values.ndim != 1 or shadows.ndim != 2 or shadows.shape[1:] != values.shape or not shadows.numel():
        told = f"{tuple(values.shape)} and {tuple(shadows.shape)}"
        raise Refused(f"{names[0]} are (N,) and {names[1]} (M, N), N and M above 0, not {told}")
    if inside is not None and (inside.dtype != torch.bool or inside.shape != shadows.shape):
        told = f"{inside.dtype} of shape {tuple(inside.shape)}"
        raise Refused(f"inside says of each shadow whether it saw the image, bools {tuple(shadows.shape)}, not {told}")
    for name, given in zip(names, (values, shadows), strict=True):
        if not given.isfinite().all():
            bad = int((~given.isfinite()).sum())
            raise Refused(f"{bad} of the {name} are NaN or infinite: look at the model behind them")
    return values.double(), shadows.double()


def require(side: Tensor, least: int, which: str) -> None:
    """Refused if an image has fewer than `least` shadows on this side, (M, N)."""
    counts = side.sum(0)
    if (counts < least).any():
        short = (counts < least).nonzero()[:, 0]
        first = int(short[0])
        raise Refused(
            f"{len(short)} of {side.shape[1]} images have fewer than {least} shadows {which}, first image {first} with "
            f"{int(counts[first])}: train more shadows, or leave these images out"
        )


def mean(shadows: Tensor, side: Tensor) -> Tensor:
    """The mean over the shadows (M, N) of this side, (N,)."""
    return torch.where(side, shadows, 0).sum(0) / side.sum(0)
