"""Layers that give a network its noise level and its label, for denoising and classifying networks alike."""

import math

import torch
from torch import Tensor, nn

from memlib.errors import Refused
from memlib.random import to_device
from memlib.shapes import Float, Int, Shaped


def positive(number: float | Shaped[Tensor, ""], name: str) -> Shaped[Tensor, ""]:
    """A number as a scalar tensor () in torch's default dtype, to be a buffer. Raises Refused unless it is positive."""
    if not 0 < (value := float(number)) < math.inf:
        raise Refused(f"{name} is {value}: give a finite number above 0")
    return torch.tensor(value)


class TimeCode(nn.Module):
    """Sines and cosines of t (B,) at `size` / 2 frequencies, (B, size).

    The frequencies rise geometrically from 1 to 32 cycles over the range [-2, 2] of t.
    """

    rates: Tensor  # (size / 2,), radians per unit of t

    def __init__(self, size: int) -> None:
        super().__init__()
        rates = torch.logspace(0, math.log2(32), size // 2, base=2) * (2 * math.pi / 4)
        self.register_buffer("rates", rates)

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b size"]:
        """(B,) -> (B, size)."""
        angle = t[:, None] * self.rates
        return torch.cat([angle.cos(), angle.sin()], 1)


def once(t: Float[Tensor, " b"]) -> Float[Tensor, " c"]:
    """The times t (B,), or the first of them, (1,), where one number was expanded to a batch, as in sampling.

    Layers of the time then run once for the batch and not once for each of its samples.
    """
    return t[:1] if len(t) > 1 and t.stride(0) == 0 else t


class LabelCode(nn.Embedding):
    """A row of numbers for each of `classes` labels and one for no label, labels (B,) -> (B, size). All start at 0.

    Raises IndexError for a label outside 0 .. classes.
    """

    def __init__(self, classes: int, size: int) -> None:
        super().__init__(classes + 1, size)
        nn.init.zeros_(self.weight)


def labels_or_none(y: Int[Tensor, " b"] | None, classes: int, x: Shaped[Tensor, " b *s"]) -> Int[Tensor, " b"]:
    """The labels (B,) of samples x (B, *S), or `classes`, which means none, for each of them."""
    return torch.full((len(x),), classes, device=x.device) if y is None else y


def dropped(y: Int[Tensor, " b"], classes: int, rate: float, generator: torch.Generator) -> Int[Tensor, " b"]:
    """Labels (B,) of which a fraction `rate` is replaced by `classes`, which means none. Ho & Salimans 2022, alg. 1."""
    gone = torch.rand(y.shape, generator=generator) < rate
    return torch.where(to_device(gone, y.device), classes, y)


class FiLMBlock(nn.Module):
    """h + W2 silu(W1 ((1 + a) norm(h) + b)), (B, width): a and b are linear in the time code, or 0 if `time` is False.

    FiLM: Perez et al. 2018.
    """

    def __init__(self, width: int, time: bool = True) -> None:
        super().__init__()
        self.norm, self.film = nn.LayerNorm(width), nn.Linear(width, 2 * width) if time else None
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.second.weight)

    def forward(self, h: Float[Tensor, " b w"], code: Float[Tensor, " #b w"] | None) -> Float[Tensor, " b w"]:
        """h (B, width), code (B, width), or (1, width) for all samples -> (B, width)."""
        inner = self.norm(h)
        if self.film is not None:
            scale, shift = self.film(code).chunk(2, 1)
            inner = (1 + scale) * inner + shift
        return h + self.second(nn.functional.silu(self.first(inner)))
