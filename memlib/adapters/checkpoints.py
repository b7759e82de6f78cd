"""Networks made elsewhere: a diffusers folder, or its name on the hub, as a denoiser. Safetensors only."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from memlib.adapters import schedule
from memlib.adapters.discrete import Discrete
from memlib.cache.weights import refuse_misfits, require_finite
from memlib.errors import Refused, needs, usable

if TYPE_CHECKING:
    from diffusers import UNet2DModel

_PREDICTS: dict[str, Literal["eps", "v", "x0"]] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_UNREADABLE = (OSError, ValueError, RuntimeError)  # raised by diffusers and the hub for unreadable files


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
        from diffusers.utils import logging

    with usable(device):
        torch.empty(0, device=device)  # before anything is read
    root = _configurations(place)
    subfolder = "unet" if (root / "unet" / "config.json").exists() else ""
    if not (root / subfolder / "config.json").exists():
        raise Refused(f"{str(place)!r} is not a diffusers folder: it has neither unet/config.json nor config.json")
    config = _configuration(place, root / subfolder)
    if (latent := {"vae", "vqvae"} & {path.name for path in root.iterdir()}) and subfolder:
        raise Refused(
            f"the U-Net of {str(place)!r} works on latents of its {latent.pop()}: give its unet folder, and encode the "
            "images beforehand"
        )
    scheduler = _scheduler(place, root)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would warn of missing and unused weights, which are refused below
    try:
        net = _network(place, root, subfolder)
    finally:
        logging.set_verbosity(verbosity)
    options = dict(scheduler.config)
    denoiser = Discrete(net, _alpha_bar(scheduler.alphas_cumprod), _PREDICTS[options["prediction_type"]], between)
    size = config["sample_size"]
    height, width = size if isinstance(size, list) else (size, size)
    denoiser.shape = (net.config["in_channels"], height, width)
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


def _alpha_bar(alphas_cumprod: Tensor) -> Tensor:
    """alpha_bar (T,) of a scheduler, with 0, which is no level, where it is lost to rounding or repeats at the end.

    Betas near 1 underflow to 0 or NaN, and a last beta of 0 repeats the level before: no use to any sampler.
    """
    bar = alphas_cumprod.double().cpu()
    stuck = (~(bar.diff() < 0)).nonzero().flatten().tolist()  # not so for nan
    if stuck and (bar[stuck[0]] < 1e-8 or stuck[0] == len(bar) - 2):
        bar[stuck[0] + 1 :] = 0
    return bar


def _configurations(place: str | Path) -> Path:
    """The folder itself, or a local copy of all JSON files in the model of that name on the hub."""
    with needs("models"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError

    folder = Path(place).expanduser()
    if folder.is_dir():
        return folder.resolve()  # "." has neither a name nor a parent
    try:
        return Path(snapshot_download(str(place), allow_patterns=["*.json"]))
    except HFValidationError as error:
        raise Refused(f"there is no folder {str(place)!r}: give a diffusers folder, or its name on the hub") from error
    except _UNREADABLE as error:
        raise Refused(
            f"there is no folder {str(place)!r}, and the hub gave no model of that name ({_reason(error)}): check the "
            "path, or the name and the network"
        ) from error


def _scheduler(place: str | Path, root: Path) -> Any:
    """The scheduler of a U-Net, which defines its timesteps. Any: no common class of diffusers declares `config`."""
    import diffusers

    folders = [root / "scheduler", root, *([root.parent / "scheduler"] if root.name in ("unet", "unet_ema") else [])]
    found = [file for folder in folders if (file := folder / "scheduler_config.json").exists()]
    if not found:
        raise Refused(
            f"{str(place)!r} has no scheduler_config.json, in scheduler/ or beside the network: without its betas the "
            "timesteps mean nothing, so copy the one it was trained with there"
        )
    config = _json(found[0])
    old = config.get("predict_epsilon") is False  # before diffusers 0.10, which ignores it now
    if old and config.setdefault("prediction_type", "sample") != "sample":
        raise Refused(
            f"{str(found[0])!r} has predict_epsilon=false and prediction_type={config['prediction_type']!r}: remove "
            "the one that does not hold"
        )
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise Refused(
            f"{str(found[0])!r} names the scheduler {config.get('_class_name')!r}, which diffusers does not have"
        )
    try:
        scheduler: Any = kind.from_config(config)  # pyright: ignore[reportAttributeAccessIssue]  # of its ConfigMixin
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise Refused(f"diffusers cannot read {str(found[0])!r}: {_reason(error)}") from error
    predicts = scheduler.config.get("prediction_type")
    if not hasattr(scheduler, "alphas_cumprod") or predicts not in _PREDICTS:
        raise Refused(
            f"the scheduler of {str(place)!r} is a {kind.__name__} with prediction_type={predicts!r}: give a model "
            f"with a discrete-time one that predicts {', '.join(_PREDICTS)}"
        )
    return scheduler


def _configuration(place: str | Path, folder: Path) -> dict[str, Any]:
    """The config.json of a U-Net that can be a denoiser of images at integer timesteps."""
    config = _json(file := folder / "config.json")
    if (kind := config.get("_class_name")) != "UNet2DModel":
        why = (
            "asks for a text or another condition" if kind == "UNet2DConditionModel" else "is not a U-Net of this kind"
        )
        raise Refused(f"the network of {str(place)!r}, a {kind}, {why}: give one with a UNet2DModel")
    if not isinstance(size := config.get("sample_size"), int | list):
        raise Refused(f"{str(file)!r} gives sample_size={size}: write the width of its images there")
    clock = config.get("time_embedding_type", "positional")
    if clock == "fourier":
        raise Refused(f"{str(file)!r} has time_embedding_type='fourier': its network takes sigmas, not timesteps")
    if clock == "learned" and not config.get("num_train_timesteps"):
        raise Refused(f"{str(file)!r} has a learned time embedding and no num_train_timesteps: write its length there")
    return config


def _network(place: str | Path, root: Path, subfolder: str) -> "UNet2DModel":
    """The UNet2DModel of a folder or of its subfolder, with all its weights read from safetensors."""
    from diffusers import UNet2DModel

    folder, local = root / subfolder, Path(place).expanduser().is_dir()
    if local:
        plain = any(not file.name.endswith(".fp16.safetensors") for file in folder.glob("*.safetensors"))
        variants = [None] if plain or not any(folder.glob("*.fp16.safetensors")) else ["fp16"]
    else:
        variants = [None, "fp16"]  # what the hub has is known only by asking
    for variant in variants:
        try:
            found: Any = UNet2DModel.from_pretrained(
                str(root) if local else str(place),
                subfolder=subfolder or None,
                use_safetensors=True,
                variant=variant,
                ignore_mismatched_sizes=True,  # refused below, by name
                low_cpu_mem_usage=False,  # True would need the package accelerate
                output_loading_info=True,
            )
            break
        except _UNREADABLE as error:
            if variant != variants[-1]:
                continue
            if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
                raise Refused(
                    f"{str(folder)!r} has its weights as a pickle, which can run code: if you trust it, convert it by "
                    "UNet2DModel.from_pretrained(folder, use_safetensors=False).save_pretrained(folder)"
                ) from error
            raise Refused(f"no weights could be read for the network of {str(place)!r}: {_reason(error)}") from error
    net, loaded = found
    refuse_misfits(str(place), loaded, "its config.json")
    require_finite(net.state_dict(), str(place))
    return net


def _json(file: Path) -> dict:
    try:
        return dict(json.loads(file.read_text(encoding="utf8")))
    except (OSError, ValueError, TypeError) as error:
        raise Refused(f"{str(file)!r} cannot be read as JSON: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The first sentence of a message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".:")
