"""SSCD, the copy descriptor used by SIDE and many others (Pizzi et al. 2022), from its official file."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from memlib import assets
from memlib.errors import Refused
from memlib.features._range import in_range
from memlib.features.principal import Embed
from memlib.features.torchscript import load_known

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of images in [0, 1]


def sscd(
    path: str | Path | None = None,
    sha256: str | None = None,
    size: int = 288,
    batch: int = 32,
    device: torch.device | str = "cpu",
) -> Embed:
    """The official TorchScript model: images (N, C, H, W) in [-1, 1], C = 1 or 3, -> (N, D), rows of length 1.

    Grey images are repeated to three channels. Values outside [-1, 1] are clipped, as in an image file. Bilinear
    resizing is antialiased as in Pillow. Features have the dtype and the device of the images.

    Arguments:
        path: `sscd_disc_mixup.torchscript.pt` (D = 512), the descriptor for which SIDE sec. 3.4 states its bands. None
            uses the file that `memlib doctor` finds. TorchScript is a program, so a file is run only if its SHA-256 is
            known.
        sha256: the SHA-256 of another file that you trust, such as `sscd_disc_large.torchscript.pt` (ResNeXt101, D =
            1024; Real-Fake, appendix G.4), for which none is on record.
        size: pixels of the shorter side. The authors recommend 288, or 320 for squares. Both resize without a crop.
        batch: the number of images on the device at once.
        device: where the network is; images may be elsewhere.

    Raises:
        Refused: for a file that is missing, unknown or not TorchScript; the descriptor itself for images of another
            shape or of integers. It warns of images that all lie in [0, 1].
    """
    asset = _asset()
    path, name = Path(path).expanduser() if path is not None else _found(), asset.published[0]
    net = load_known(path, sha256 or assets.FILES[name].sha256, f"{name} ({asset.origin})", device)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (_MEAN, _STD))

    @torch.no_grad()
    def embed(images: Tensor) -> Tensor:
        images = in_range(images, "SSCD")
        if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
            raise Refused(f"SSCD takes images (N, 1 or 3, H, W), not a tensor of shape {tuple(images.shape)}")
        short = min(images.shape[2:])
        shape = [int(size * side / short) for side in images.shape[2:]]
        rows = []
        for part in images.split(batch):
            part = (part.to(device, torch.float32).clamp(-1, 1) + 1) / 2
            part = interpolate(part, shape, mode="bilinear", antialias=True).expand(-1, 3, -1, -1)
            rows.append(net((part - mean) / std).to(images.device, images.dtype))
        return torch.cat(rows)

    return embed


def _found() -> Path:
    """The official file that `memlib doctor` finds, or Refused."""
    asset = _asset()
    place = assets.look(asset)
    if place.state != "found" or place.path is None:
        told = f": {place.detail}" if place.detail else ""
        raise Refused(f"there are no weights of SSCD here{told}; `memlib doctor` says how to get them ({asset.origin})")
    return place.path / asset.published[0]


def _asset() -> assets.Asset:
    return next(asset for asset in assets.ASSETS if asset.name == "sscd")
