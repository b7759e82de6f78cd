"""LiRA: is the value more likely among models that saw the image, or among models that did not?"""

from typing import Literal

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.membership import _sides
from memlib.shapes import Float, Shaped

_EQUAL = 1e-12  # a deviation below this fraction of the values is rounding


def lira(
    values: Shaped[Tensor, "..."],
    shadows: Shaped[Tensor, "..."],
    inside: Shaped[Tensor, "..."],
    *,
    offline: bool = False,
    variance: Literal["fixed", "example"] = "fixed",
) -> Float[Tensor, " n"]:
    """The likelihood-ratio attack. Carlini et al. 2022, algorithm 1 and eq. 4.

    Online: log N(v; mu_in, s_in^2) - log N(v; mu_out, s_out^2), with the moments of the shadows that saw the image and
    of those that did not. Offline: only those that did not, and the test is one-sided. Returned is the log-odds
    log Phi(z) - log Phi(-z) that a value of such a model lies below v, with z = (v - mu_out) / s_out. It has the
    order of the log-probability log Phi(z), which rounds to 0 above z = 38, and in float32 above z = 13.

    Few shadows do not reach the optimum, as each mean errs by s / sqrt(shadows). Two Gaussians that are 2 deviations
    apart, 7 shadows a side: TPR at 1 % is .31 with one deviation for all images and .18 with one for each, where .37 is
    optimal.

    Arguments:
        values: (N,), a statistic of the target, such as `margin`, larger for members.
        shadows: (M, N), the same of the M shadow models. See `membership.shadows` for who may be one.
        inside: (M, N) bools, whether the shadow saw the image.
        offline: whether to use only the shadows that did not see the image.
        variance: "fixed" takes one deviation for all images on each side, pooled within the images: squared
            residuals about each image's own mean, over the shadows less one for each image. "example" takes each
            image's own. Where deviations are alike, fixed wins; where they differ much, example wins even at 7 shadows.

    Returns:
        (N,) in float64; larger is more member-like.

    Raises:
        Refused: for an image without the shadows that it needs (1 on each side used, 2 for "example"), deviations
            that are 0 or cannot be known (from one pair of shadows), NaN, and shapes that do not match.
    """
    if variance not in ("fixed", "example"):
        raise Refused(f"the variance of LiRA is 'fixed' or 'example', not {variance!r}")
    values, shadows = _sides.checked(values, shadows, inside)
    least = 1 if variance == "fixed" else 2
    _sides.require(~inside, least, _sides.NOT)
    mean, deviation = _moments(shadows, ~inside, variance, _sides.NOT)
    below = (values - mean) / deviation
    if offline:
        return torch.special.log_ndtr(below) - torch.special.log_ndtr(-below)
    _sides.require(inside, least, _sides.SAW)
    mean, spread = _moments(shadows, inside, variance, _sides.SAW)
    above = (values - mean) / spread
    return 0.5 * (below.square() - above.square()) + (deviation / spread).log()


def _moments(shadows: Tensor, side: Tensor, variance: str, which: str) -> tuple[Tensor, Tensor]:
    """Mean (N,) and deviation, (N,) or (), of the shadows (M, N) of this side; or Refused."""
    mean = _sides.mean(shadows, side)
    squares, degrees = torch.where(side, shadows - mean, 0).square().sum(0), side.sum(0) - 1
    if variance == "fixed":
        if int(degrees.sum()) < 1:
            raise Refused(f"no image has 2 shadows {which}, so their deviation is unknown: train more shadows")
        squares, degrees = squares.sum(), degrees.sum()
        scale = mean.abs().max()
    else:
        scale = mean.abs()
    deviation = (squares / degrees).sqrt()
    flat = deviation <= _EQUAL * scale
    if flat.any():
        images = "all images" if variance == "fixed" else f"image {int(flat.nonzero()[0, 0])}"
        raise Refused(f"the shadows {which} agree exactly on {images}, a deviation of 0: take another statistic")
    return mean, deviation
