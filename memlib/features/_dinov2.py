"""DINOv2 from a local folder: features of what an image shows, trained without labels or text."""

from pathlib import Path

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.features._clip import _square
from memlib.features._inception import three_channels
from memlib.features._pretrained import pretrained
from memlib.features._range import in_range
from memlib.features.principal import Embed

_MEAN = (0.485, 0.456, 0.406)  # per channel, in [0, 1]: those of ImageNet
_STD = (0.229, 0.224, 0.225)


def dinov2(folder: str | Path, *, size: int = 224, device: str | torch.device = "cpu", batch: int = 64) -> Embed:
    """The class token of a DINOv2 model in a transformers folder: (N, C, H, W) in [-1, 1] -> (N, D), not normalised.

    Images, C = 1 or 3, have their shorter side resized to `size`, bicubic with antialiasing, are cut to the central
    square and standardised as ImageNet. (The model's own processor resizes to 256 and cuts out 224: it would leave the
    margin of an image out.) Oquab et al. 2024.

    Arguments:
        folder: has `config.json` and `*.safetensors`. Nothing is downloaded, and no code in the folder is run.
        size: pixels of a side, a multiple of the model's patch.
        device: where the network is.
        batch: the number of images processed at once.

    Raises:
        Refused: for a folder that is missing, damaged, or of another kind of model, and a size that is no multiple of
            the patch; the embedder itself for images of integers or of other channels.
    """
    net = pretrained(folder, "dinov2", "Dinov2Model", "a DINOv2 model")
    if size < 1 or size % (patch := net.config.patch_size):
        raise Refused(f"the model sees patches of {patch} pixels, of which a side of {size} is no multiple")
    net = net.to(device).eval().requires_grad_(False)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (_MEAN, _STD))

    @torch.no_grad()
    def embed(images: Tensor) -> Tensor:
        images = in_range(images, "DINOv2")
        rows = []
        for part in images.split(batch):
            square = _square(three_channels(part).to(mean), size)
            rows.append(net(pixel_values=((square + 1) / 2 - mean) / std).pooler_output)
        return torch.cat(rows)

    return embed
