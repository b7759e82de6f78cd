"""CLIP's image encoder from a local folder: features of what an image shows, not of how it looks."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from memlib.features._inception import three_channels
from memlib.features._pretrained import pretrained
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
    net = pretrained(folder, "clip", "CLIPModel", "a CLIP model")
    vision, project = (
        half.to(device).eval().requires_grad_(False) for half in (net.vision_model, net.visual_projection)
    )
    side = net.vision_model.config.image_size
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (_MEAN, _STD))

    @torch.no_grad()
    def embed(images: Tensor) -> Tensor:
        images = in_range(images, "CLIP")
        parts = (_square(three_channels(part).to(mean), side) for part in images.split(batch))
        inputs = (((part + 1) / 2 - mean) / std for part in parts)
        return torch.cat([project(vision(pixel_values=values).pooler_output) for values in inputs])

    return embed


def _square(images: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) -> the central (N, 3, side, side), after the shorter side is resized to that length."""
    height, width = images.shape[-2:]
    longer = max(height, width) * side // min(height, width)
    size = (side, longer) if height < width else (longer, side)
    images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return images[:, :, top : top + side, left : left + side]
