"""What lies in a diffusers folder, or in a model on the hub: its configurations, its scheduler, its networks.

No code in the folder is run and no pickle is read.
"""

import inspect
import json
import math
from pathlib import Path
from typing import Any

from torch import nn

from memlib.cache.weights import refuse_misfits, require_finite
from memlib.errors import Refused, needs, reason


def configurations(place: str | Path) -> Path:
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
    except (OSError, ValueError, RuntimeError) as error:
        raise Refused(
            f"there is no folder {str(place)!r}, and the hub gave no model of that name ({reason(error)}): check the "
            "path, or the name and the network"
        ) from error


def located(place: str | Path, *parts: str) -> tuple[Path, str]:
    """Where a network lies: the folder of its pipeline and the first of `parts` in it, or its own folder and "".

    Raises:
        Refused: for a place that is not there, or without the network.
    """
    root = configurations(place)
    subfolder = next((part for part in parts if (root / part / "config.json").exists()), "")
    if not (root / subfolder / "config.json").exists():
        raise Refused(
            f"{str(place)!r} is not a diffusers folder: it has neither {parts[0]}/config.json nor config.json"
        )
    return root, subfolder


def scheduler(place: str | Path, root: Path) -> Any | None:
    """The scheduler beside a U-Net, which defines its clock; None without one.

    Any: no common class of diffusers declares `config`.

    Raises:
        Refused: for a configuration that diffusers cannot read.
    """
    import diffusers

    folders = [root / "scheduler", root, *([root.parent / "scheduler"] if root.name in ("unet", "unet_ema") else [])]
    found = [file for folder in folders if (file := folder / "scheduler_config.json").exists()]
    if not found:
        return None
    config = as_json(found[0])
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
        return kind.from_config(config)  # pyright: ignore[reportAttributeAccessIssue]  # of its ConfigMixin
    except Exception as error:  # a dozen kinds, of settings that are not of its types
        raise Refused(f"diffusers cannot read {str(found[0])!r}: {reason(error)}") from error


def of_unet(place: str | Path, folder: Path) -> dict[str, Any]:
    """The config.json of a U-Net that can be a denoiser of images and is told its timestep as a number.

    Raises:
        Refused: for a network of another kind, and for one that does not say the size of its images.
    """
    config = as_json(file := folder / "config.json")
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


def shape(config: dict[str, Any]) -> tuple[int, int, int]:
    """The (C, H, W) of what a U-Net takes, from its config.json."""
    size = config["sample_size"]
    height, width = size if isinstance(size, list) else (size, size)
    return config["in_channels"], height, width


def network(kind: Any, place: str | Path, root: Path, subfolder: str) -> Any:
    """The model of a folder or of its subfolder, of a class of diffusers, with all weights read from safetensors.

    Raises:
        Refused: for weights that are missing, pickled, damaged, not finite or not those of the configuration, and for a
            setting of another type, which diffusers would stumble over when it is used.
    """
    from diffusers.utils import logging

    folder, local = root / subfolder, Path(place).expanduser().is_dir()
    _require_types(kind, folder / "config.json")
    variants: list[str | None] = [None, "fp16"]  # what the hub has is known only by asking
    if local:
        plain = any(not file.name.endswith(".fp16.safetensors") for file in folder.glob("*.safetensors"))
        variants = [None] if plain or not any(folder.glob("*.fp16.safetensors")) else ["fp16"]
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would warn of missing and unused weights, which are refused below
    try:
        net, loaded = _read(kind, str(root) if local else str(place), subfolder, variants)
    except Exception as error:  # a dozen kinds, for damaged files and for settings that make no network
        if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
            raise Refused(
                f"{str(folder)!r} has its weights as a pickle, which can run code: if you trust it, convert it by "
                f"{kind.__name__}.from_pretrained(folder, use_safetensors=False).save_pretrained(folder)"
            ) from error
        raise Refused(f"no weights could be read for the network of {str(place)!r}: {reason(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
    refuse_misfits(str(place), loaded, "its config.json")
    require_finite(net.state_dict(), str(place))
    return net.float()  # a file may have some weights in half precision, which diffusers leaves so


def _require_types(kind: Any, file: Path) -> None:
    """Refuse a configuration whose number is no finite number, or whose word is none, by the defaults of its class."""
    config = as_json(file)
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        value = None if name == "sample_size" else config.get(name)  # which may be a pair
        if isinstance(parameter.default, int | float) and value is not None:
            fits = isinstance(value, int | float) and math.isfinite(value)
        else:
            fits = value is None or not isinstance(parameter.default, str) or isinstance(value, str)
        if not fits:
            raise Refused(f"{str(file)!r} gives {name}={value!r}, and {kind.__name__} {parameter.default!r}: write one")


def _read(kind: Any, place: str, subfolder: str, variants: list[str | None]) -> tuple[nn.Module, dict[str, Any]]:
    """The model in the first of the variants that is there, and what its weights lack."""
    for variant in variants:
        try:
            return kind.from_pretrained(
                place,
                subfolder=subfolder or None,
                use_safetensors=True,
                variant=variant,
                ignore_mismatched_sizes=True,  # refused by name, where it is called
                low_cpu_mem_usage=False,  # True would need the package accelerate
                output_loading_info=True,
            )
        except Exception:
            if variant == variants[-1]:
                raise
    raise AssertionError("there is a variant")


def as_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises Refused where there is none."""
    try:
        return dict(json.loads(file.read_text(encoding="utf8")))
    except (OSError, ValueError, TypeError) as error:
        raise Refused(f"{str(file)!r} cannot be read as JSON: {reason(error)}") from error
