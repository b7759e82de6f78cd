"""A copy descriptor trained here in seconds on a reference set: the recipe of SSCD for images of few pixels.

A small convolutional net learns by InfoNCE to tell the altered versions of an image from other images, while an entropy
term keeps neighbours apart (Pizzi et al. 2022). Its features are joined with half-whitened pixels, which are robust to
noise but not to shifts: the net learns what they miss. A cosine is the mean of the two cosines.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from memlib import metrics, train
from memlib.cache.weights import load_weights
from memlib.errors import Refused
from memlib.features._range import in_range, span_of
from memlib.features.alterations import augment
from memlib.features.principal import Embed, _principal
from memlib.random import to_device
from memlib.shapes import Float
from memlib.stored import Rows, mapped, mean_row

_BATCH = 128  # images in each step, two views of each
_RATE = 3e-3


def copies(reference: Rows, state: dict[str, Tensor] | None = None) -> Embed:
    """The trained descriptor, (N, C, H, W) -> (N, D), rows of length 1, in the dtype and on the device of its images.

    Arguments:
        reference: (M, C, H, W) in [-1, 1], real images that are never scored, in memory or on disk.
        state: the result of `learn_copies` for the same reference; None trains it now.

    Raises:
        Refused: as `learn_copies` does; the descriptor itself for images of another shape or of integers. It warns of
            images in another range than the reference.
    """
    reference = in_range(reference, "copies")
    span = span_of(reference)
    state = learn_copies(reference) if state is None else state
    net = _Descriptor(reference).float()  # for any default dtype
    load_weights(net, state, "state")
    net.eval()

    @torch.no_grad()
    def embed(images: Tensor) -> Tensor:
        images = in_range(images, "copies", span)
        if images.shape[1:] != reference.shape[1:]:
            wanted, given = tuple(reference.shape[1:]), tuple(images.shape[1:])
            raise Refused(f"this descriptor was trained on images of shape {wanted}, not {given}: give such images")
        rows = [net.to(images.device)(part.float()) for part in images.split(1024)]
        found = torch.cat(rows) if rows else torch.empty(0, net.size)
        return found.to(images.device, images.dtype)

    return embed


def learn_copies(
    reference: Rows, seed: int = 0, steps: int = 300, entropy: float = 5.0, flips: bool = False
) -> dict[str, Tensor]:
    """Train the descriptor and return its weights for `copies`.

    Training is separate from `copies` so that its result can be cached: `copies(reference, run.cached("copies",
    learn_copies, reference))`.

    Arguments:
        reference: (M, C, H, W) in [-1, 1], M >= 16, in memory or on disk.
        seed: of the initial weights and all draws.
        steps: training steps, of 128 images each.
        entropy: the weight of the entropy term. The paper has 30 with batches of 4,096, which contain nearer
            neighbours; with 128, weights from 3 to 10 found the most copies.
        flips: see `augment`.

    Raises:
        Refused: for fewer than 16 images, which are too few to learn from, and for images of integers. A warning tells
            of images that all lie in [0, 1]: alterations are clipped to [-1, 1].
    """
    reference = in_range(reference, "copies")
    if reference.dim() != 4 or len(reference) < 16:
        given = tuple(reference.shape)
        raise Refused(f"a copy descriptor learns from 16 images (M, C, H, W) or more, not from shape {given}")
    reference = reference.to(torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = _Descriptor(reference).to(reference.device, torch.float32)
    spread, count = float(net.spread), min(_BATCH, len(reference))

    def loss(net: nn.Module, generator: torch.Generator) -> Tensor:
        images = reference[to_device(torch.randperm(len(reference), generator=generator)[:count], reference.device)]
        views = [augment(images, spread, generator, flips) for _ in range(2)]
        return copy_loss(net(torch.cat(views).to(images)), entropy)

    for _ in train.fit(net, loss, steps, lr=_RATE, seed=seed, precision="fp32", title="copy descriptor"):
        pass
    return net.state_dict()


def copy_loss(rows: Float[Tensor, "n d"], entropy: float = 30.0, temperature: float = 0.05) -> Float[Tensor, ""]:
    """InfoNCE plus `entropy` times the entropy term, a scalar. Pizzi et al. 2022, as in their code.

    With s the cosines and T the temperature, InfoNCE is the mean over rows i of -log(e^(s_ij / T) / (e^(s_ij / T) + sum
    of e^(s_ik / T))), where j is the other view of the same image and k runs over all views of other images. The
    entropy term is -log of the distance to the nearest view of another image (Kozachenko and Leonenko 1987;
    Sablayrolles et al. 2019). It spreads the descriptors evenly, so that one threshold suits dense and sparse parts of
    the data.

    Arguments:
        rows: (2B, D), features of two views of B images: image i has rows i and B + i. They are normalised here.
        entropy: the weight of the entropy term.
        temperature: T.
    """
    rows, half = normalize(rows), len(rows) // 2
    cosine = rows @ rows.T
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    target = torch.arange(len(rows), device=rows.device).roll(half)
    contrast = cross_entropy(cosine.masked_fill(itself, -torch.inf) / temperature, target)
    nearest = cosine.masked_fill(itself | itself.roll(half, 1), -2.0).amax(1)
    return contrast - entropy * (2 - 2 * nearest).clamp_min(1e-6).sqrt().log().mean()


def recall(
    embed: Embed, members: Rows, held_out: Rows, kinds: dict[str, Tensor], fpr: float = 0.01
) -> dict[str, metrics.Count]:
    """The planted copies that a descriptor finds, k of N for each kind, at a false-positive rate `fpr`.

    A copy is found if its nearest member is its original, with a cosine that at most a fraction `fpr` of the held-out
    images reach with any member.

    Arguments:
        embed: the descriptor.
        members: (N, C, H, W), the originals.
        held_out: (M, C, H, W), images that are not copies; they set the threshold.
        kinds: the copies of each kind (`alterations.planted`), (N, C, H, W) each, copy i of member i.
        fpr: the false-positive rate.

    Raises:
        Refused: if M images cannot resolve `fpr`, and for copies that do not pair up.
    """
    if wrong := [kind for kind, images in kinds.items() if len(images) != len(members)]:
        raise Refused(f"there are {len(kinds[wrong[0]])} copies of kind {wrong[0]!r} for {len(members)} members")
    known = embed(members)
    edge = metrics.threshold(metrics.nearest(embed(held_out), known)[0], fpr)
    truth = torch.arange(len(members), device=known.device)
    found = {}
    for kind, images in kinds.items():
        similarity, index = (t[:, 0] for t in metrics.nearest(embed(images), known))
        found[kind] = metrics.Count(int(((index == truth) & (similarity >= edge)).sum()), len(members))
    return found


class _Descriptor(nn.Module):
    """Half-whitened pixels joined with the features of a convolutional net; each part, and the whole, of length 1."""

    mean: Tensor  # (C, H, W)
    spread: Tensor  # scalar
    half_whitened: Tensor  # (D, k)

    def __init__(self, reference: Rows, width: int = 24, dim: int = 64, components: int = 40) -> None:
        super().__init__()
        mean = mean_row(reference.to(torch.float32))
        self.register_buffer("mean", mean)
        squares = mapped(reference.to(torch.float32), lambda rows: (rows - mean).square())
        variance = squares.mean() if isinstance(squares, Tensor) else mean_row(squares).mean()
        self.register_buffer("spread", variance.sqrt().clamp_min(1e-6))
        _, axes, variance = _principal(reference, components)
        half = axes[:components] / variance[:components, None] ** 0.25  # further ones are mostly noise
        self.register_buffer("half_whitened", half.T.to(mean))  # (D, k)
        channels, *shape = mean.shape
        layers = []
        for _ in range(max(0, (min(shape) // 12).bit_length())):  # until a side has 6 to 12 pixels
            layers += _block(channels, width, 5, 2)
            channels = width
        layers += _block(channels, width) if not layers else []
        layers += [*_block(width, width), nn.AvgPool2d(2, ceil_mode=True), *_block(width, 2 * width), nn.Flatten()]
        self.body = nn.Sequential(*layers)
        with torch.no_grad():
            flat = self.body.eval()(torch.zeros(1, *mean.shape)).shape[1]
        self.body.train()  # batch statistics are part of training
        self.head = nn.Linear(flat, dim)
        self.size = dim + self.half_whitened.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        particular = images - self.mean
        learnt = self.head(self.body(particular / self.spread))
        return torch.cat((normalize(particular.flatten(1) @ self.half_whitened), normalize(learnt)), 1) / 2**0.5


def _block(channels: int, width: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU()]
