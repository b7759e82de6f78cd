"""Inception-v3 as FID and the Inception score are measured in the literature: features (N, 2048), 1,008 probabilities.

The network is that of the first FID, from December 2015, in NVIDIA's TorchScript translation for StyleGAN2-ADA. Li et
al. 2024 used torchvision's network, which has other weights: numbers of the two are not comparable.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlib.assets import FILES
from memlib.errors import Refused
from memlib.features._range import in_range
from memlib.features.torchscript import load_known

_SIDE = 299  # pixels a side that the network was trained on


class Inception:
    """Inception-v3 for images (N, C, H, W) in [-1, 1], C = 1 or 3, in batches and without gradients.

    Images are rounded to the 256 levels of a file, grey ones are repeated to three channels, and all are resized to 299
    pixels:

    - resize="network": by the bilinear resampling of the network, as in TensorFlow 1, without antialiasing. This is
      what FID usually means; large images alias.
    - resize="clean": bicubic with antialiasing, before the network, clipped to 0 to 255 (Parmar et al. 2022,
      clean-FID).

    Images of integers are Refused, and a warning tells of images that all lie in [0, 1].
    """

    def __init__(self, net: nn.Module, resize: Literal["network", "clean"] = "network", batch: int = 64) -> None:
        if resize not in ("network", "clean"):
            raise Refused(f"resize is 'network' or 'clean', not {resize!r}")
        self.net, self.resize, self.batch = net.eval(), resize, batch

    def embed(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> pooled features (N, 2048), which the Frechet distance compares."""
        return self._judge(images, features=True)

    def probabilities(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 1008), rows that sum to 1.

        The bias of the last layer is left out, as in the first Inception score (Salimans et al. 2016).
        """
        return self._judge(images, features=False)

    @torch.no_grad()
    def _judge(self, images: Tensor, features: bool) -> Tensor:
        images = in_range(images, "Inception")
        device = next((p.device for p in self.net.parameters()), images.device)
        results = []
        for part in images.split(self.batch):
            levels = self._levels(part.to(device))
            answer = self.net(levels, return_features=True) if features else self.net(levels, no_output_bias=True)
            results.append(answer.flatten(1))
        return torch.cat(results)

    def _levels(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, 3, H, W) from 0 to 255, or (N, 3, 299, 299) if resized here."""
        levels = three_channels(images).float().add(1).mul(127.5).round().clamp(0, 255)
        if self.resize == "network":
            return levels
        levels = F.interpolate(levels, (_SIDE, _SIDE), mode="bicubic", antialias=True, align_corners=False)
        return levels.clamp(0, 255)  # a bicubic curve overshoots at edges


def inception(
    path: str | Path,
    *,
    resize: Literal["network", "clean"] = "network",
    device: str | torch.device = "cpu",
    digest: str | None = FILES["inception-2015-12-05.pt"].sha256,
) -> Inception:
    """`Inception` from the file `inception-2015-12-05.pt`: images (N, C, H, W) -> features (N, 2048).

    TorchScript is a program, so the file is run only if its SHA-256 is `digest`.

    Arguments:
        path: the file.
        resize: see `Inception`.
        device: where the network is.
        digest: the SHA-256 of the file in hex; by default that of the published file.

    Raises:
        Refused: for a file that is missing, has another SHA-256, or is not TorchScript.
    """
    return Inception(load_known(Path(path).expanduser(), digest, "inception-2015-12-05.pt", device), resize)


def three_channels(images: Tensor) -> Tensor:
    """Images (N, C, H, W) with C = 1 or 3 as (N, 3, H, W). Any other C is Refused."""
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise Refused(f"images must be (N, C, H, W) with 1 or 3 channels, not {tuple(images.shape)}")
    return images.expand(-1, 3, -1, -1)
