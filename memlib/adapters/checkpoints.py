"""Networks made elsewhere: a diffusers folder, or its name on the hub, as a denoiser. Safetensors only."""

import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from memlib.adapters import folders, schedule
from memlib.adapters.discrete import Discrete
from memlib.errors import Refused, needs, usable

_PREDICTS: dict[str, Literal["eps", "v", "x0"]] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def from_diffusers(
    place: str | Path,
    *,
    device: str | torch.device = "cpu",
    between: Literal["refuse", "interpolate"] = "refuse",
) -> Discrete:
    """The U-Net of a diffusers folder, or of a model on the hub, as a denoiser: (B, C, H, W) -> (B, C, H, W).

    alpha_bar and the prediction type (epsilon, v_prediction, sample) come from the scheduler in the folder. It may be
    any of diffusers' discrete-time classes. What else it says of sampling is in the denoiser's `grid`, `variance` and
    `limit`; what samplers here do not do by themselves, such as to clip x0, is announced. No code in the folder is run
    and no pickle is read; weights that are there in half precision only (`*.fp16.safetensors`) are read as they are.

    Arguments:
        place: the folder of a pipeline (`unet/` and `scheduler/`), a folder with a U-Net and `scheduler_config.json`,
            the `unet` or `unet_ema` folder of a pipeline, or a name on the hub such as `google/ddpm-cifar10-32`. A
            folder of that name takes precedence over the hub.
        device: of the denoiser.
        between: see `from_discrete`.

    Returns:
        A denoiser in evaluation mode and float32, with trainable weights. Its network is a UNet2DModel, unconditional
        or class-conditional: `functools.partial(denoiser, y=labels)`.

    Raises:
        Refused: if a file is missing or damaged, a weight does not fit or is not finite, the model is of another kind,
            the device cannot be used, or diffusers is not installed.

    Warns:
        UserWarning: for an average of the weights (`unet_ema`) beside those that are read, and for what the scheduler
            does and samplers here do not.
    """
    with needs("models"):
        from diffusers import UNet2DModel

    with usable(device):
        torch.empty(0, device=device)  # before anything is read
    root, subfolder = folders.located(place, "unet")
    config = folders.of_unet(place, root / subfolder)
    if (latent := {"vae", "vqvae"} & {path.name for path in root.iterdir()}) and subfolder:
        raise Refused(
            f"the U-Net of {str(place)!r} works on latents of its {(name := latent.pop())}: give its unet folder, and "
            f"read the other by from_vae({name!r}) to encode images and decode samples"
        )
    scheduler = _discrete(place, folders.scheduler(place, root))
    net = folders.network(UNet2DModel, place, root, subfolder)
    options = dict(scheduler.config)
    denoiser = Discrete(net, _alpha_bar(scheduler.alphas_cumprod), _PREDICTS[options["prediction_type"]], between)
    denoiser.shape = folders.shape(config)
    # Without diffusers' private entries, which would override the defaults of the scheduler's class.
    denoiser.schedule = {name: value for name, value in options.items() if not name.startswith("_")}
    if told := schedule.differences(denoiser.schedule):
        warnings.warn(f"the scheduler of {str(place)!r} {', and '.join(told)}", stacklevel=2)
    if (root / "unet_ema").is_dir() and subfolder:
        warnings.warn(
            f"{str(place)!r} has a unet_ema, the running average of its weights that is usually sampled, and the raw "
            "ones are read: give its folder unet_ema for the average",
            stacklevel=2,
        )
    return denoiser.to(device).eval()


def _discrete(place: str | Path, scheduler: Any | None) -> Any:
    """A scheduler of numbered levels that predicts what a `Discrete` can take; refused if it is another."""
    if scheduler is None:
        raise Refused(
            f"{str(place)!r} has no scheduler_config.json, in scheduler/ or beside the network: without its betas the "
            "timesteps mean nothing, so copy the one it was trained with there"
        )
    predicts = scheduler.config.get("prediction_type")
    if not hasattr(scheduler, "alphas_cumprod") or predicts not in _PREDICTS:
        other = ", or read this one by from_edm" if hasattr(scheduler, "precondition_outputs") else ""
        raise Refused(
            f"the scheduler of {str(place)!r} is a {type(scheduler).__name__} with prediction_type={predicts!r}: give "
            f"a model with a discrete-time one that predicts {', '.join(_PREDICTS)}{other}"
        )
    return scheduler


def _alpha_bar(alphas_cumprod: Tensor) -> Tensor:
    """alpha_bar (T,) of a scheduler, with 0, which is no level, where it is lost to rounding or repeats at the end.

    Betas near 1 underflow to 0 or NaN, and a last beta of 0 repeats the level before: no use to any sampler.
    """
    bar = alphas_cumprod.double().cpu()
    stuck = (~(bar.diff() < 0)).nonzero().flatten().tolist()  # not so for nan
    if stuck and (bar[stuck[0]] < 1e-8 or stuck[0] == len(bar) - 2):
        bar[stuck[0] + 1 :] = 0
    return bar
