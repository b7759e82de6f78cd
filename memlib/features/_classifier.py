"""A convolutional classifier trained here on labelled images: an independent judge, and features without Inception.

Its Frechet distances, Inception scores and cosines are comparable between models judged by the same classifier, but not
with published numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlib import train
from memlib.errors import Refused
from memlib.features._range import Span, in_range, span_of
from memlib.metrics import Count
from memlib.metrics._arguments import takes_arrays
from memlib.random import choose, to_device
from memlib.shapes import Float, Int, Shaped

_BATCH = 512  # images judged at once


class ClassifierFeatures(nn.Module):
    """Images (N, C, H, W) in [-1, 1] -> classes, by 3 x 3 convolutions that halve the image until it is at most 4 wide.

    Strided convolutions reduce it to 16 or less. Then pairs of convolutions alternate with pooling. The channels start
    at `width` and double after each pooling. The mean over the remaining positions is the embedding. Use `forward` for
    training; `logits`, `probabilities` and `embed` work in batches and without gradients. They refuse images of
    integers, and a network in training mode, whose answer to an image depends on the others of its batch; they warn of
    images in another range than those it was trained on.
    """

    def __init__(self, channels: int, size: int, classes: int, width: int = 32) -> None:
        super().__init__()
        layers, before, now = [], channels, width
        while size > 16:
            layers += _convolution(before, now, stride=2)
            size, before = (size + 1) // 2, now
        while True:
            layers += [*_convolution(before, now), *_convolution(now, now)]
            before = now
            if size <= 4:
                break
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            size, now = (size + 1) // 2, 2 * now
        self.span: Span | None = None  # of the images that it was trained on, if it was trained here
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(before, classes)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """(N, C, H, W) -> logits (N, classes), with gradients."""
        return self.head(self.body(images))

    def logits(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """(N, C, H, W) -> (N, classes)."""
        return self._judge(self, images)

    def probabilities(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """(N, C, H, W) -> (N, classes), rows that sum to 1, as `metrics.inception_score` takes them."""
        return self.logits(images).softmax(1)

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """(N, C, H, W) -> features (N, D), the input of the last layer."""
        return self._judge(self.body, images)

    @torch.no_grad()
    def _judge(self, part: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        if self.training:
            raise Refused("this classifier is in training mode, where images change each other's answers: call .eval()")
        images, parameter = in_range(images, "the classifier", self.span or span_of(images)), next(self.parameters())
        return torch.cat([part(batch.to(parameter)) for batch in images.split(_BATCH)])


class HeldOut(NamedTuple):
    """How a classifier performs on images that it never saw: the hits, and the mean probability of its answers.

    A `confidence` above the interval of `accuracy` means that it is overconfident and its Inception scores are too
    high.
    """

    accuracy: Count
    confidence: float


@takes_arrays("images", "labels")
def classifier(
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 300,
    batch: int = 64,
    width: int = 32,
    lr: float = 3e-3,
    shift: int = 1,
    seed: int = 0,
) -> ClassifierFeatures:
    """A `ClassifierFeatures` trained by cross-entropy with Adam, in eval mode and with its parameters frozen.

    The same seed gives the same network. Digits of 8 pixels take 3 s on one core. At 16 to 28 pixels, width=16 takes 5
    s and judges equally well.

    Arguments:
        images: (N, C, H, W) in [-1, 1].
        labels: (N,), 0 to K - 1; a yes-or-no attribute has K = 2.
        steps, batch, lr: training steps, images in each, and the learning rate.
        width: the channels of the first convolution.
        shift: each image of a batch is shifted by up to this many pixels in both directions, with its edge repeated.
        seed: of the initial weights and all draws.

    Raises:
        Refused: for images and labels that do not pair up, images of integers, labels that are not whole numbers, and
            for a single class.
    """
    images = in_range(images, "a classifier", span_of(images))
    if images.dim() != 4 or labels.shape != images.shape[:1]:
        shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise Refused(f"a classifier takes images (N, C, H, W) and labels (N,), not {shapes}")
    labels = _whole(labels)
    if len(labels) == 0 or labels.min() < 0 or labels.max() < 1:
        raise Refused("labels must run from 0 to at least 1: give two classes or more")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ClassifierFeatures(images.shape[1], images.shape[-1], int(labels.max()) + 1, width)
        net.to(images.device, images.dtype)

    every = torch.arange(len(images), device=images.device)

    def loss(net: nn.Module, generator: torch.Generator) -> Tensor:
        rows = choose(every, batch, generator)
        moves = to_device(torch.randint(-shift, shift + 1, (2, batch), generator=generator), images.device)
        return F.cross_entropy(net(_moved(images[rows], *moves)), labels[rows])

    for _ in train.fit(net, loss, steps, lr=lr, seed=seed, title="classifier"):
        pass
    net.span = span_of(images)
    return net.eval().requires_grad_(False)


@takes_arrays("images", "labels")
def held_out(net: ClassifierFeatures, images: Float[Tensor, "n c h w"], labels: Shaped[Tensor, " n"]) -> HeldOut:
    """Accuracy and mean confidence on images (N, C, H, W) with labels (N,) that were not used for training.

    Raises:
        Refused: for images and labels that do not pair up, and for labels that the classifier does not have.
    """
    classes, labels = net.head.out_features, _whole(labels)
    if labels.shape != images.shape[:1] or not len(labels):
        raise Refused(f"{len(images)} images need a label each, (N,), not labels of shape {tuple(labels.shape)}")
    if labels.min() < 0 or labels.max() >= classes:
        wrong = int(labels.min() if labels.min() < 0 else labels.max())
        raise Refused(f"the classifier has classes 0 to {classes - 1}, and none is {wrong}: number the labels alike")
    confidence, answers = net.probabilities(images).max(1)
    return HeldOut(Count(int((answers == labels.to(answers)).sum()), len(labels)), float(confidence.mean()))


def _whole(labels: Tensor) -> Int[Tensor, " n"]:
    """Labels as integers, or Refused where they are not whole numbers."""
    whole = labels.long()
    if (whole != labels).any():
        raise Refused(
            f"labels are whole numbers, not {float(labels[whole != labels][0]):g}: give the number of the class"
        )
    return whole


def _convolution(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


def _moved(
    images: Float[Tensor, "n c h w"], down: Int[Tensor, " n"], right: Int[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """Images (B, C, H, W), each shifted by `down` and `right` (B,) pixels, with its edge repeated."""
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - down[:, None]).clamp(0, height - 1)  # (B, H)
    columns = (torch.arange(width, device=images.device) - right[:, None]).clamp(0, width - 1)  # (B, W)
    index = torch.arange(len(images), device=images.device)[:, None, None]
    return images.movedim(1, -1)[index, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
