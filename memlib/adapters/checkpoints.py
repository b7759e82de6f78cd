"""Networks made elsewhere: a diffusers folder, or its name on the hub, as a denoiser. Safetensors only."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from memlib.adapters.discrete import Discrete
from memlib.errors import Refused, needs

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
    any of diffusers' discrete-time classes. Its option clip_sample belongs to the sampler and is not applied here. No
    code in the folder is run and no pickle is read.

    Arguments:
        place: the folder of a pipeline (`unet/` and `scheduler/`), a folder with a U-Net and `scheduler_config.json`,
            the `unet` folder of a pipeline, or a name on the hub such as `google/ddpm-cifar10-32`. A folder of that
            name takes precedence over the hub.
        device: of the denoiser.
        between: see `from_discrete`.

    Returns:
        A denoiser in evaluation mode and float32, with trainable weights. Its network is a UNet2DModel, unconditional
        or class-conditional: `functools.partial(denoiser, y=labels)`.

    Raises:
        Refused: if a file is missing or damaged, the model is of another kind, or diffusers is not installed.
    """
    with needs("models"):
        from diffusers.utils import logging

    root = _configurations(place)
    subfolder = "unet" if (root / "unet" / "config.json").exists() else ""
    if not (root / subfolder / "config.json").exists():
        raise Refused(f"{str(place)!r} is not a diffusers folder: it has neither unet/config.json nor config.json")
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
    denoiser = Discrete(net, scheduler.alphas_cumprod, _PREDICTS[scheduler.config.prediction_type], between)
    config: Any = net.config  # a FrozenDict, whose entries are attributes too
    size = config.sample_size
    height, width = size if isinstance(size, list | tuple) else (size, size)
    denoiser.shape = (config.in_channels, height, width)
    # Without diffusers' private entries, which would override the defaults of the scheduler's class.
    denoiser.schedule = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
    return denoiser.to(device).eval()


def _configurations(place: str | Path) -> Path:
    """The folder itself, or a local copy of all JSON files in the model of that name on the hub."""
    with needs("models"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError

    folder = Path(place).expanduser()
    if folder.is_dir():
        return folder
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

    folders = [root / "scheduler", root, *([root.parent / "scheduler"] if root.name == "unet" else [])]
    found = [file for folder in folders if (file := folder / "scheduler_config.json").exists()]
    if not found:
        raise Refused(
            f"{str(place)!r} has no scheduler_config.json, in scheduler/ or beside the network: without its betas the "
            "timesteps mean nothing, so copy the one it was trained with there"
        )
    config = _json(found[0])
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


def _network(place: str | Path, root: Path, subfolder: str) -> "UNet2DModel":
    """The UNet2DModel of a folder or of its subfolder, with all its weights read from safetensors."""
    from diffusers import UNet2DModel

    folder = root / subfolder
    config = _json(folder / "config.json")
    if (kind := config.get("_class_name")) != "UNet2DModel":
        why = (
            "asks for a text or another condition" if kind == "UNet2DConditionModel" else "is not a U-Net of this kind"
        )
        raise Refused(f"the network of {str(place)!r}, a {kind}, {why}: give one with a UNet2DModel")
    if not isinstance(size := config.get("sample_size"), int | list):
        raise Refused(f"{str(folder / 'config.json')!r} gives sample_size={size}: write the width of its images there")
    try:
        found: Any = UNet2DModel.from_pretrained(
            str(local) if (local := Path(place).expanduser()).is_dir() else str(place),  # else the hub's
            subfolder=subfolder or None,
            use_safetensors=True,
            low_cpu_mem_usage=False,  # True would need the package accelerate
            output_loading_info=True,
        )
    except _UNREADABLE as error:
        if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
            raise Refused(
                f"{str(folder)!r} has its weights as a pickle, which can run code: if you trust it, convert it by "
                "UNet2DModel.from_pretrained(folder, use_safetensors=False).save_pretrained(folder)"
            ) from error
        raise Refused(f"no weights could be read for the network of {str(place)!r}: {_reason(error)}") from error
    net, loaded = found
    if wrong := [*loaded["missing_keys"], *loaded["unexpected_keys"], *loaded["mismatched_keys"]]:
        raise Refused(
            f"the weights of {str(place)!r} are not those of its config.json: {len(wrong)} differ, such as {wrong[0]!r}"
        )
    return net


def _json(file: Path) -> dict:
    try:
        return dict(json.loads(file.read_text(encoding="utf8")))
    except (OSError, ValueError, TypeError) as error:
        raise Refused(f"{str(file)!r} cannot be read as JSON: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The first sentence of a message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".:")
