"""What the scheduler of a diffusers folder says of sampling: the grid, the variance, what is done to x0."""

from typing import Any, get_args

import torch
from torch import Tensor

from memlib.denoiser import Variance
from memlib.errors import Refused
from memlib.noise import Spacing, discrete

_OTHER_LEVELS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


def grid(alphas_cumprod: Tensor, n: int | None, schedule: dict[str, Any]) -> Tensor:
    """(n + 1,) levels that DDIM or DDPM visits in n steps as the schedule says, from alpha_bar (T,); all for None.

    `timestep_spacing` and `steps_offset` choose them (`noise.discrete`). The grid ends in 0, or, under
    `set_alpha_to_one=False` or `final_sigmas_type="sigma_min"`, in the lowest level of the model.
    """
    spacing = schedule.get("timestep_spacing", "leading")
    offset = schedule.get("steps_offset", 0) if spacing == "leading" and n is not None else 0
    sigmas = discrete(alphas_cumprod, n, spacing, offset)
    if schedule.get("set_alpha_to_one") is False or schedule.get("final_sigmas_type") == "sigma_min":
        lowest = discrete(alphas_cumprod)[-2:-1]
        sigmas = torch.cat([sigmas[:-1][sigmas[:-1] > lowest], lowest])
    return sigmas


def variance(schedule: dict[str, Any]) -> Variance:
    """The variance of DDPM's noise, a scalar choice: "large" for `fixed_large`, else "small"."""
    return "large" if str(schedule.get("variance_type")).startswith("fixed_large") else "small"


def limited(x0: Tensor, schedule: dict[str, Any]) -> Tensor:
    """Estimates of x0 (B, *S) as the scheduler treats them: clipped, thresholded dynamically, or as they are.

    Dynamic thresholding is that of Saharia et al. 2022 (Imagen), sec. 2.3.
    """
    if schedule.get("thresholding"):
        rows = x0.flatten(1) if x0.dtype in (torch.float32, torch.float64) else x0.flatten(1).float()
        bound = torch.quantile(rows.abs(), schedule.get("dynamic_thresholding_ratio", 0.995), dim=1, keepdim=True)
        bound = bound.clamp(1, schedule.get("sample_max_value", 1.0))
        return (rows.clamp(-bound, bound) / bound).view_as(x0).to(x0)
    if schedule.get("clip_sample"):
        bound = schedule.get("clip_sample_range", 1.0)
        return x0.clamp(-bound, bound)
    return x0


def differences(schedule: dict[str, Any]) -> list[str]:
    """What the scheduler does and samplers here do not, each in a clause, with what to do about it.

    Raises:
        Refused: for a spacing of timesteps that `noise.discrete` does not have.
    """
    if (spacing := schedule.get("timestep_spacing", "leading")) not in get_args(Spacing):
        raise Refused(f"the scheduler spaces its timesteps {spacing!r}: give 'leading', 'trailing' or 'linspace'")
    told = []
    if schedule.get("thresholding") or schedule.get("clip_sample"):
        how = "thresholds" if schedule.get("thresholding") else "clips"
        told.append(f"{how} its estimates of x0 (here only by limit=D.limit, see sample.ancestral)")
    if str(schedule.get("variance_type")).startswith("learned"):
        told.append("takes the variance of new noise from the network (here it is the small one, see sample.ancestral)")
    if other := [name for name in _OTHER_LEVELS if schedule.get(name)]:
        told.append(f"visits levels between the trained ones ({other[0]}; D.grid visits trained ones only)")
    return told
