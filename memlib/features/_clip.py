"""CLIP's image encoder from a local folder: features of what an image shows, not of how it looks."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from memlib.cache.weights import refuse_misfits, require_finite
from memlib.errors import Refused, needs
from memlib.features._inception import three_channels
from memlib.features._range import in_range
from memlib.features.principal import Embed

_MEAN = (0.48145466, 0.4578275, 0.40821073)  # per channel, in [0, 1]: those that every CLIP was trained with
_STD = (0.26862954, 0.26130258, 0.27577711)  # (Radford et al. 2021), LAION's ViT-H-14 too


def clip(folder: str | Path, *, device: str | torch.device = "cpu", batch: int = 64) -> Embed:
    """Image embeddings of a CLIP model in a transformers folder: (N, C, H, W) in [-1, 1] -> (N, D), not normalised.

    Images, C = 1 or 3, are processed as by CLIP's own processor, except for its rounding to 256 levels. The shorter
    side is resized to that of the model (224), bicubic with antialiasing. The central square is cut out, clamped to
    [-1, 1], and standardised by CLIP's mean and standard deviation.

    Arguments:
        folder: has `config.json` and `*.safetensors`. The paper uses laion/CLIP-ViT-H-14-laion2B-s32B-b79K (D = 1024).
            Nothing is downloaded, and no code in the folder is run.
        device: where the network is.
        batch: the number of images processed at once.

    Raises:
        Refused: for a folder that is missing, damaged, or of another kind of model; the embedder itself for images of
            integers or of other channels. It warns of images that all lie in [0, 1].
    """
    folder = Path(folder).expanduser()
    if not (folder / "config.json").is_file():
        raise Refused(
            f"{str(folder)!r} is not a transformers folder, it has no config.json: give the folder of a CLIP model"
        )
    if (kind := json.loads((folder / "config.json").read_text(encoding="utf8")).get("model_type")) != "clip":
        raise Refused(f"{str(folder)!r} holds a model of type {kind!r}, not 'clip': give the folder of a CLIP model")
    vision, project, side = _halves(folder, device)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (_MEAN, _STD))

    @torch.no_grad()
    def embed(images: Tensor) -> Tensor:
        images = in_range(images, "CLIP")
        parts = (_square(three_channels(part).to(mean), side) for part in images.split(batch))
        inputs = (((part + 1) / 2 - mean) / std for part in parts)
        return torch.cat([project(vision(pixel_values=values).pooler_output) for values in inputs])

    return embed


def _halves(folder: Path, device: str | torch.device) -> tuple[nn.Module, nn.Module, int]:
    """The image encoder and its projection, frozen, and the side of its images. Refused if a weight is missing."""
    with needs("models"):
        from transformers import CLIPModel
        from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what it would warn of is refused below
    try:
        # transformers does not declare that output_loading_info makes a pair of the result.
        net, loaded = CLIPModel.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise Refused(f"{str(folder)!r} cannot be read ({reason}): give the folder with its *.safetensors") from error
    finally:
        logging.set_verbosity(verbosity)
    if lacking := sorted(loaded["missing_keys"]):
        raise Refused(f"{str(folder)!r} lacks {len(lacking)} weights, {lacking[0]} for one: download it again")
    if misshapen := sorted(loaded["mismatched_keys"]):
        raise Refused(f"{str(folder)!r} cannot be read: {misshapen[0][0]} has another shape than its config.json says")
    refuse_misfits(str(folder), loaded, "its config.json")
    require_finite(net.state_dict(), str(folder))
    vision, project = (
        half.to(device).eval().requires_grad_(False) for half in (net.vision_model, net.visual_projection)
    )
    return vision, project, net.vision_model.config.image_size


def _square(images: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) -> the central (N, 3, side, side), after the shorter side is resized to that length."""
    height, width = images.shape[-2:]
    longer = max(height, width) * side // min(height, width)
    size = (side, longer) if height < width else (longer, side)
    images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return images[:, :, top : top + side, left : left + side]
