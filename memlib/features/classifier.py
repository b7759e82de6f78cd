"""A small classifier of real images: an external judge of samples, and features for the Frechet distance.

It is trained on real images alone and never sees a sample or a model. Convolutions with a 2 x 2 grid at the end, so
that where a stroke lies still counts; any size from 8 pixels.
"""

import copy

import torch
from torch import Tensor, nn

from memlib import train
from memlib.errors import Refused


class Classifier(nn.Module):
    """Logits (N, classes) of images (N, channels, size, size), linear in features (N, 4 width)."""

    def __init__(self, size: int, channels: int, classes: int, width: int = 32) -> None:
        """Raises Refused for images of less than 8 pixels."""
        super().__init__()
        if size < 8:
            raise Refused(f"images of {size} pixels are too small to classify by convolutions: give 8 or more")
        stages, here, wide = [], channels, width
        while size >= 8:
            stages += [nn.Conv2d(here, wide, 3, padding=1), nn.GroupNorm(8, wide), nn.SiLU(), nn.AvgPool2d(2)]
            here, wide, size = wide, min(2 * wide, 8 * width), size // 2
        self.stages = nn.Sequential(*stages, nn.Conv2d(here, 2 * width, 3, padding=1), nn.SiLU())
        self.features = nn.Sequential(
            self.stages, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * width, 4 * width), nn.SiLU()
        )
        self.head = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> logits (N, classes)."""
        return self.head(self.features(images))

    @torch.no_grad()
    def embed(self, images: Tensor, batch: int = 1000) -> Tensor:
        """Features (N, 4 width) of images (N, C, H, W), in parts of `batch`."""
        return torch.cat([self.features(part) for part in images.split(batch)])

    @torch.no_grad()
    def predict(self, images: Tensor, batch: int = 1000) -> Tensor:
        """The most likely class of each image (N, C, H, W), (N,)."""
        return torch.cat([self(part).argmax(1) for part in images.split(batch)])


def fit_classifier(
    images: Tensor,
    labels: Tensor,
    classes: int,
    steps: int = 600,
    *,
    batch: int = 64,
    lr: float = 4e-3,
    shift: int = 1,
    width: int = 32,
    seed: int = 0,
) -> Classifier:
    """A `Classifier` of real images (N, C, H, W) with labels (N,), trained by cross-entropy, averaged, frozen.

    Images are moved by up to `shift` pixels in either direction, the border repeated. On the device and in the dtype of
    the images. Raises Refused for fewer than two classes and labels outside of them.
    """
    if classes < 2 or labels.min() < 0 or labels.max() >= classes:
        raise Refused(f"a classifier needs two classes or more, with labels 0..{classes - 1}, not {labels.unique()}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Classifier(images.shape[-1], images.shape[1], classes, width).to(images)
    average = copy.deepcopy(net)
    labels, size = labels.to(images.device), images.shape[-1]
    padded = nn.functional.pad(images, (shift,) * 4, mode="replicate") if shift else images

    def loss(net: nn.Module, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(images), (batch,), generator=generator).to(images.device)
        down, right = torch.randint(2 * shift + 1, (2,), generator=generator).tolist()
        return nn.functional.cross_entropy(net(padded[rows, :, down : down + size, right : right + size]), labels[rows])

    for _ in train.fit(net, loss, steps, lr=lr, ema=average, decay=0.99, seed=seed, title="classifier"):
        pass
    return average.requires_grad_(False).eval()
