"""CLIP's image encoder from a local folder: what an image is of, rather than how it looks."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from memlib.errors import Refused
from memlib.features._inception import three_channels
from memlib.features.principal import Embed

_MEAN = (0.48145466, 0.4578275, 0.40821073)  # per channel, in [0, 1]: those that every CLIP was trained with
_STD = (0.26862954, 0.26130258, 0.27577711)  # (Radford et al. 2021), LAION's ViT-H-14 too


def clip(folder: str | Path, *, device: str | torch.device = "cpu", batch: int = 64) -> Embed:
    """Image embeddings of a CLIP model in a transformers folder: (N, C, H, W) in [-1, 1] -> (N, D), not normalised.

    folder: `config.json` and `*.safetensors`; the paper's is laion/CLIP-ViT-H-14-laion2B-s32B-b79K (D = 1024).
        Nothing is fetched, and no code of the folder is run.

    Images, C = 1 or 3, are resized with their shorter side to that of the model (224), bicubic with antialiasing, cut
    to its middle square, clamped to [-1, 1] and standardised by CLIP's own mean and deviation: what CLIP's processor
    does, but for its rounding to 256 levels in between. Raises Refused for a folder that is missing or of another kind.
    """
    folder = Path(folder).expanduser()
    if not (folder / "config.json").is_file():
        raise Refused(f"{str(folder)!r} is no transformers folder, it has no config.json: give that of a CLIP model")
    if (kind := json.loads((folder / "config.json").read_text(encoding="utf8")).get("model_type")) != "clip":
        raise Refused(f"{str(folder)!r} holds a model of type {kind!r}, not 'clip': give the folder of a CLIP model")
    vision, project = _halves(folder, device)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (_MEAN, _STD))
    side = vision.config.image_size

    @torch.no_grad()
    def embed(images: Tensor) -> Tensor:
        parts = (_square(three_channels(part).to(mean), side) for part in images.split(batch))
        inputs = (((part + 1) / 2 - mean) / std for part in parts)
        return torch.cat([project(vision(pixel_values=values).pooler_output) for values in inputs])

    return embed


def _halves(folder: Path, device: str | torch.device) -> tuple[nn.Module, nn.Module]:
    """The image encoder and its projection, frozen; the text encoder is dropped. Refused if a weight is not there."""
    from transformers import CLIPModel
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what it would warn of is refused below
    try:
        net, loaded = CLIPModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise Refused(f"{str(folder)!r} cannot be read ({reason}): give the folder with its *.safetensors") from error
    finally:
        logging.set_verbosity(verbosity)
    if lacking := sorted(loaded["missing_keys"]):
        raise Refused(f"{str(folder)!r} lacks {len(lacking)} weights, {lacking[0]} for one: download it again")
    return tuple(half.to(device).eval().requires_grad_(False) for half in (net.vision_model, net.visual_projection))


def _square(images: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) -> the middle (N, 3, side, side) of images whose shorter side is that long."""
    height, width = images.shape[-2:]
    longer = max(height, width) * side // min(height, width)
    size = (side, longer) if height < width else (longer, side)
    images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return images[:, :, top : top + side, left : left + side]
