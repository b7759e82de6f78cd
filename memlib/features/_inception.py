"""Inception-v3 as the literature measures FID and the Inception score with it: features (N, 2048), 1,008 probabilities.

The network is that of the first FID, from December 2015, as NVIDIA translated it to TorchScript for StyleGAN2-ADA.
Li et al. 2024 took torchvision's, which was trained anew: figures of the two do not compare.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlib.assets import FILES
from memlib.errors import Refused
from memlib.features.torchscript import load_known

_SIDE = 299  # pixels a side that the network was trained on


class Inception:
    """Inception-v3: images (N, C, H, W) in [-1, 1], C = 1 or 3, judged in batches, without gradients.

    They are brought to the 256 levels of a file, grey ones repeated to three channels, and resized to 299 pixels:

    - resize="network": by the network's own bilinear resampling, as TensorFlow 1 did it, without antialiasing. What FID
      usually means; large images alias.
    - resize="clean": bicubic with antialiasing, beforehand (Parmar et al. 2022, clean-FID).
    """

    def __init__(self, net: nn.Module, resize: Literal["network", "clean"] = "network", batch: int = 64) -> None:
        if resize not in ("network", "clean"):
            raise Refused(f"images are resized by the 'network' or 'clean', not {resize!r}")
        self.net, self.resize, self.batch = net.eval(), resize, batch

    def embed(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> pooled features (N, 2048): what the Frechet distance compares."""
        return self._judge(images, features=True)

    def probabilities(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 1008), rows that sum to 1, without the bias of the last layer, as the first Inception
        score was computed (Salimans et al. 2016)."""
        return self._judge(images, features=False)

    @torch.no_grad()
    def _judge(self, images: Tensor, features: bool) -> Tensor:
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
        return F.interpolate(levels, (_SIDE, _SIDE), mode="bicubic", antialias=True, align_corners=False)


def inception(
    path: str | Path,
    *,
    resize: Literal["network", "clean"] = "network",
    device: str | torch.device = "cpu",
    digest: str = FILES["inception-2015-12-05.pt"].sha256,
) -> Inception:
    """`Inception` from a file `inception-2015-12-05.pt`, which embeds images (N, C, H, W) in features (N, 2048).

    TorchScript is a program, so the file is run only if its SHA-256 is `digest`. Raises Refused for a file that is
    missing, another or no TorchScript.
    """
    return Inception(load_known(Path(path).expanduser(), digest, "inception-2015-12-05.pt", device), resize)


def three_channels(images: Tensor) -> Tensor:
    """Images (N, C, H, W) with C = 1 or 3 as (N, 3, H, W); any other C is Refused."""
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise Refused(f"images must be (N, C, H, W) with 1 or 3 channels, not {tuple(images.shape)}")
    return images.expand(-1, 3, -1, -1)
