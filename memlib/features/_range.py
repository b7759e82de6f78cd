"""Images in the range that an embedder takes, as a rule [-1, 1]. Another range gives other features, and no error."""

import warnings
from typing import NamedTuple, overload

import numpy
import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.stored import Rows, span


class Span(NamedTuple):
    """The smallest and the largest value of a set of images."""

    low: float
    high: float

    @property
    def unit(self) -> bool:
        """Whether the set lies in [0, 1] and varies, as images do that nobody has moved to [-1, 1]."""
        return 0 <= self.low < self.high <= 1

    @property
    def levels(self) -> bool:
        """Whether the set looks like 256 levels, 0 to 255."""
        return self.low >= 0 and self.high > 2


IMAGES = Span(-1.0, 1.0)
"""What an embedder takes that was trained by others."""


def span_of(images: Rows) -> Span:
    """The span of images (N, C, H, W); that of a usual set where there are none."""
    return Span(*span(images)) if images.numel() else IMAGES


@overload
def in_range(images: Tensor, what: str, wanted: Span = IMAGES) -> Tensor: ...
@overload
def in_range(images: Rows, what: str, wanted: Span = IMAGES) -> Rows: ...
def in_range(images: Rows, what: str, wanted: Span = IMAGES) -> Rows:
    """The images (N, C, H, W) as a tensor, unchanged: numpy arrays are taken too, and a set on disk stays there.

    A warning says so if all values lie in [0, 1], or in 0 to 255, and those of the wanted span do not, or the reverse.

    Arguments:
        images: (N, C, H, W).
        what: the word for what takes them, for the sentence.
        wanted: the span of the images that the embedder was fitted to.

    Raises:
        Refused: for images of integers, whose range is not [-1, 1].
    """
    images = torch.from_numpy(images) if isinstance(images, numpy.ndarray) else images
    if not images.is_floating_point():
        raise Refused(f"{what} takes images of floats in [-1, 1], not of {images.dtype}: give images / 127.5 - 1")
    given = span_of(images)
    if given.unit and not wanted.unit:
        said = "all values lie in [0, 1], as if images were not yet in [-1, 1]: if so, give 2 * images - 1"
    elif given.levels and not wanted.levels:
        said = "all values lie between 0 and 255, as if images were not yet in [-1, 1]: if so, give images / 127.5 - 1"
    elif given.low < 0 and (wanted.unit or wanted.levels):
        said = f"values reach below 0, but those of the reference lie in [0, {wanted.high:.3g}]: give both in one range"
    else:
        return images
    warnings.warn(f"{what}: {said}", stacklevel=3)
    return images
