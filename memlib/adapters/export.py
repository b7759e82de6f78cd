"""Networks made here as folders that diffusers loads without memlib."""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from memlib.adapters.discrete import Discrete
from memlib.cache.atomic import place_folder, writing
from memlib.cache.weights import require_finite
from memlib.denoiser import Denoiser
from memlib.errors import Refused, needs

if TYPE_CHECKING:
    from diffusers import DDPMScheduler

_PREDICTION: dict[str, Literal["epsilon", "v_prediction", "sample"]] = {
    "eps": "epsilon",
    "v": "v_prediction",
    "x0": "sample",
}


def to_diffusers(denoiser: Denoiser, folder: str | Path) -> Path:
    """Save a denoiser of images (B, C, H, W) as a folder for `DDPMPipeline.from_pretrained`.

    The weights are written as safetensors, and the folder appears whole or not at all. Its scheduler is a DDPMScheduler
    with the options of the scheduler that the network was loaded with. A network made here gets its own betas and no
    clipping, so that the pipeline samples as `sample.ancestral` with eta = 1 does. DDPMPipeline passes no labels: a
    class-conditional network loads, but sampling needs a loop of your own.

    Arguments:
        denoiser: a `from_discrete` around a UNet2DModel, such as `nets.UNet(...).unet`. Only such a network was trained
            at diffusers' timesteps, so only it is exactly such a pipeline.
        folder: new or empty.

    Returns:
        The folder.

    Raises:
        Refused: for any other denoiser, for weights that are not finite, for a folder that is not empty, and if
            diffusers is not installed.
    """
    with needs("models"):
        from diffusers import DDPMPipeline, UNet2DModel

    net = getattr(denoiser, "net", None)
    net = getattr(net, "_orig_mod", net)  # compiled
    if not (isinstance(denoiser, Discrete) and isinstance(net, UNet2DModel)):
        held = f" around a {type(net).__name__}" if net is not None else ""
        raise Refused(
            f"a {type(denoiser).__name__}{held} cannot be a diffusers pipeline, whose networks know integer timesteps: "
            "train adapters.from_discrete(nets.UNet(...).unet, alphas_cumprod, 'v') instead"
        )
    require_finite(net.state_dict(), "this network")
    folder = Path(folder).expanduser()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise Refused(f"{str(folder)!r} exists already: give a new folder, or empty that one")
    with writing(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with writing(folder), tempfile.TemporaryDirectory(".partial", folder.name, folder.parent) as beside:
        whole = Path(beside) / folder.name
        DDPMPipeline(net, _scheduler(denoiser)).save_pretrained(whole)
        config = json.loads((whole / "unet" / "config.json").read_text(encoding="utf8"))
        config.pop("_name_or_path", None)  # the place it was loaded from is private
        (whole / "unet" / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf8")
        place_folder(whole, folder)
    return folder


def _scheduler(denoiser: Discrete) -> "DDPMScheduler":
    """A DDPMScheduler of the same levels and prediction type."""
    from diffusers import DDPMScheduler

    if denoiser.schedule is not None:
        scheduler: Any = DDPMScheduler.from_config({"clip_sample": False, **denoiser.schedule})
        return scheduler
    return DDPMScheduler(
        num_train_timesteps=len(denoiser.alphas_cumprod),
        trained_betas=_betas(denoiser.alphas_cumprod),
        prediction_type=_PREDICTION[denoiser.predicts],
        clip_sample=False,
    )


def _betas(alphas_cumprod: torch.Tensor) -> list[float]:
    """float32 betas (T,) whose cumulative product in a scheduler, in float32, is alpha_bar (T,).

    Each beta corrects the rounding of those before it.
    """
    betas, product = [], 1.0
    for bar in alphas_cumprod.tolist():
        beta = torch.tensor(1 - bar / product, dtype=torch.float32)
        betas.append(beta.item())
        product *= (1 - beta).item()
    return betas
