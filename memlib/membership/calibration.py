"""The plainest calibration: the value less what shadows say of the same image."""

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.membership import _sides
from memlib.shapes import Float, Shaped


def calibrated(
    values: Shaped[Tensor, "..."],
    shadows: Shaped[Tensor, "..."],
    inside: Shaped[Tensor, "..."] | None = None,
    *,
    offline: bool = False,
) -> Float[Tensor, " n"]:
    """Each value minus a reference value of the same image: some images are easy for every model.

    Watson et al. 2022 subtract the mean over models that did not see the image (`offline=True`). With models on
    both sides the reference is the midpoint of the two means, so that 0 is as far from members as from others. For
    diffusion models this gains more than the choice of the statistic.

    Arguments:
        values: (N,), a statistic of the target, larger for members.
        shadows: (M, N), the same of the M shadow models. See `membership.shadows` for who may be one.
        inside: (M, N) bools, whether the shadow saw the image. None, where nobody knows, subtracts the mean of all.
        offline: whether to use only the shadows that did not see the image.

    Returns:
        (N,) in float64; larger is more member-like.

    Raises:
        Refused: for an image without a shadow on a side that is used, offline without `inside`, NaN, and shapes that do
            not match.
    """
    values, shadows = _sides.checked(values, shadows, inside)
    if inside is None:
        if offline:
            raise Refused("offline calibration takes the shadows that did not see an image: give inside")
        return values - shadows.mean(0)
    _sides.require(~inside, 1, _sides.NOT)
    reference = _sides.mean(shadows, ~inside)
    if not offline:
        _sides.require(inside, 1, _sides.SAW)
        reference = torch.lerp(reference, _sides.mean(shadows, inside), 0.5)
    return values - reference
