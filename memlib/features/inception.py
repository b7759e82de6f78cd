"""Inception-v3 as the literature measures FID and the Inception score with it: features (N, 2048), 1,008 probabilities.

The network is that of the first FID, from December 2015, as NVIDIA translated it to TorchScript for StyleGAN2-ADA.
Li et al. 2024 took torchvision's, which was trained anew: figures of the two do not compare.
"""

import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlib.assets import FILES, sha256
from memlib.errors import Refused

_SIDE = 299    # pixels a side that the network was trained on


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
    missing or another.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise Refused(f"there is no file {str(path)!r}: download inception-2015-12-05.pt, as `memlib doctor` says")
    if (found := sha256(path)) != digest:
        raise Refused(f"{str(path)!r} has SHA-256 {found[:12]}, not {digest[:12]}, and was not run: download it again")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)    # torch.jit is, and the file has no other form
        return Inception(torch.jit.load(str(path), map_location=device), resize)


def three_channels(images: Tensor) -> Tensor:
    """Images (N, C, H, W) with C = 1 or 3 as (N, 3, H, W); any other C is Refused."""
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise Refused(f"images must be (N, C, H, W) with 1 or 3 channels, not {tuple(images.shape)}")
    return images.expand(-1, 3, -1, -1)
