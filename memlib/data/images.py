"""The result of every source: images in [-1, 1] with labels, the names of the labels, and a fingerprint."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from memlib.errors import Refused


@dataclass(frozen=True)
class Images:
    """Images (N, C, H, W), float32 in [-1, 1], with labels (N,), int64, that index `names`.

    Create them with `collect`; index them with a slice or a tensor.

    Attributes:
        images, labels, names: see above.
        fingerprint: the SHA-256 of the shapes and bytes of images and labels, in hex.
        source: where the images come from, in the form that `load` understands.
        skipped: how many further images could not be read and were left out on request.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    fingerprint: str
    source: str
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | Tensor) -> "Images":
        return collect(self.images[index], self.labels[index], self.names, self.source, self.skipped)


def collect(images: Tensor, labels: Tensor, names: tuple[str, ...], source: str, skipped: int = 0) -> Images:
    """`Images` from images (N, C, H, W) in [-1, 1] and labels (N,), with their fingerprint.

    Raises:
        ValueError: for a wrong shape, range or label. This is an error in the source, not of its user.
    """
    if images.dim() != 4 or labels.shape != (len(images),):
        shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"{source}: images are (N, C, H, W) with labels (N,), not {shapes}")
    images, labels = images.to(torch.float32).contiguous(), labels.to(torch.int64).contiguous()
    if images.numel():
        low, high = images.aminmax()  # NaN where there is one, and no copy of a large set
        if not (low >= -1 and high <= 1 and labels.min() >= 0 and labels.max() < len(names)):
            raise ValueError(f"{source}: images must lie in [-1, 1] and labels in 0..{len(names) - 1}")
    digest = hashlib.sha256()
    for tensor in (images, labels):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.cpu().numpy().reshape(-1).data)
    return Images(images, labels, names, digest.hexdigest(), source, skipped)


def subset(total: int, limit: int | None, seed: int = 0) -> Tensor:
    """The ascending positions, (N,), of N = `limit` out of `total` images, drawn by `seed`; all if limit is None.

    The images of a smaller limit are among those of a larger one. Raises Refused for a limit outside 1..total.
    """
    if limit is None:
        return torch.arange(total)
    if not 1 <= limit <= total:
        raise Refused(f"limit={limit} cannot be drawn from {total} images: give 1 to {total}, or leave limit out")
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:limit].sort().values


def plant_duplicates(images: Images, count: int, copies: int, seed: int = 0) -> tuple[Images, Tensor]:
    """Add `copies` further copies of `count` images, drawn by `seed`: a search for duplicates then has a known answer.

    Returns:
        The T = N + count * copies images, copies last, and the index of the original of each, (T,).

    Raises:
        Refused: for a count outside 0..N, and for a negative number of copies.
    """
    if not 0 <= count <= len(images) or copies < 0:
        raise Refused(f"{copies} copies of {count} cannot be planted among {len(images)} images: give fewer")
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
    origin = torch.cat((torch.arange(len(images)), chosen.repeat(copies)))
    return images[origin], origin
