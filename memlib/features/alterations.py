"""The changes after which an image still counts as the same image: a copy descriptor is trained and tested with them.

Images are (N, C, H, W) in [-1, 1]. Every random choice is drawn from the generator, on the CPU, for the whole batch.
Lengths are in pixels. They grow with the square root of the image size, because 1 of 16 pixels is a smaller part of an
image than 1 of 8.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, conv2d, grid_sample, interpolate, pad

from memlib.features._range import in_range
from memlib.shapes import Float

UNSEEN = ("coarse", "posterized", "gamma", "rotated")
"""The kinds of `planted` that `augment` never makes: what a trained descriptor has to find without practice."""


def augment(
    images: Float[Tensor, "n c h w"], spread: float, generator: torch.Generator, flips: bool = False
) -> Float[Tensor, "n c h w"]:
    """A random altered version of each image, (N, C, H, W), in [-1, 1]: a view for contrastive training.

    Each image is cropped, shifted, partly covered, mixed with the next image of the batch, brightened, noised and
    blurred, each with some probability. These are the augmentations of Pizzi et al. 2022 that make sense at 8 to 32
    pixels.

    Arguments:
        images: (N, C, H, W) in [-1, 1].
        spread: the standard deviation of the data around their mean image; noise is scaled by it.
        generator: the random choices.
        flips: mirror half of the images. Do not use it for digits: many become another sign.
    """

    def some(probability: float) -> Tensor:
        return torch.rand(len(images), generator=generator) < probability

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(images), generator=generator)

    unit = _unit(images)
    if flips:
        images = torch.where(_column(some(0.5), images).bool(), images.flip(3), images)
    scale = torch.where(some(0.5), between(0.8, 1.1), 1.0)
    views = moved(images, scale, *(between(-0.7, 0.7) * unit * some(0.6) for _ in range(2)))
    views = torch.where(_column(some(0.25), views).bool(), covered(views, generator), views)
    weight = _column(between(0, 0.35) * some(0.25), views)
    views = (1 - weight) * views + weight * images.roll(1, 0)
    gain, shift = torch.where(some(0.5), between(0.6, 1.2), 1.0), between(-0.2, 0.2) * some(0.5)
    views = _column(gain, views) * views + _column(shift, views)
    views = views + _column(spread * between(0, 0.5) * some(0.6), views) * _noise(views, generator)
    return blurred(views, between(0.05, 0.75) * unit * some(0.6)).clamp(-1, 1)


def planted(images: Float[Tensor, "n c h w"], generator: torch.Generator) -> dict[str, Float[Tensor, "n c h w"]]:
    """One copy of each image of every kind, (N, C, H, W) each, by the name of the kind: copies with a known original.

    The first kinds are those that a memorizing model makes: noise that was smoothed away, remaining noise, small
    shifts, another contrast. The others are usual in copy detection. Noise has 0.3 times the standard deviation of the
    images around their mean. `generator` makes the random choices. The image that is mixed in is the next one in a
    random circle of all, so that the order of the images does not matter.

    Raises:
        Refused: for images of integers. A warning tells of images that all lie in [0, 1].
    """
    images = in_range(images, "planted copies")
    unit, count = _unit(images), len(images)
    spread = float((images - images.mean(0)).square().mean().sqrt())
    one, angle = torch.ones(count), 2 * math.pi * torch.rand(count, generator=generator)
    sign = 2.0 * torch.randint(0, 2, (count,), generator=generator) - 1
    noisy = images + 0.3 * spread * _noise(images, generator)
    kinds = {
        "denoised": blurred(noisy, 0.45 * unit * one),
        "noisy": noisy,
        "shifted": moved(images, one, 0.5 * unit * angle.cos(), 0.5 * unit * angle.sin()),
        "contrast": 0.7 * images + 0.15 * _column(sign, images),
        "blurred": blurred(images, 0.6 * unit * one),
        "cropped": moved(images, 0.88 * one, 0 * one, 0 * one),
        "covered": covered(images, generator),
        "mixed": 0.75 * images + 0.25 * images[_another(count, generator)],
        "coarse": interpolate(avg_pool2d(images, 2, ceil_mode=True), images.shape[2:]),
        "posterized": (1.5 * images).round() / 1.5,  # four grey levels
        "gamma": 2 * ((images.clamp(-1, 1) + 1) / 2) ** 1.8 - 1,
        "rotated": moved(images, one, 0 * one, 0 * one, 0.12 * sign),
    }
    return {kind: copies.clamp(-1, 1) for kind, copies in kinds.items()}


def moved(
    images: Float[Tensor, "n c h w"],
    scale: Float[Tensor, " n"],
    right: Float[Tensor, " n"],
    down: Float[Tensor, " n"],
    turn: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "n c h w"]:
    """Each image (N, C, H, W) through a window `scale` times its size, shifted by pixels and rotated by radians.

    Resampling is bilinear. Outside the image, its edge is repeated.

    Arguments:
        images: (N, C, H, W).
        scale: (N,); below 1 crops.
        right, down: (N,), the shift of the window in pixels.
        turn: (N,), its rotation in radians; None does not rotate.
    """
    height, width = images.shape[2:]
    turn = torch.zeros_like(scale) if turn is None else turn
    along, across = scale * turn.cos(), scale * turn.sin()
    # The unit of the grid is half the image, so a rotation of an image that is not square needs the ratio of its sides.
    first = torch.stack((along, -across * height / width, 2 * right / width), 1)
    second = torch.stack((across * width / height, along, 2 * down / height), 1)
    grid = affine_grid(torch.stack((first, second), 1).to(images), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def blurred(images: Float[Tensor, "n c h w"], std: Float[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
    """Each image (N, C, H, W) blurred by a Gaussian of its own width `std` (N,), in pixels; 0 leaves it unchanged."""
    count, channels, height, width = images.shape
    radius = max(1, math.ceil(2.5 * float(std.max())))
    distance = torch.arange(-radius, radius + 1.0, device=std.device)
    kernel = torch.exp(-(distance**2) / (2 * std[:, None].clamp_min(1e-3) ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0).to(images)  # (N C, 2 radius + 1)
    rows = pad(images, (radius,) * 4, mode="replicate").reshape(1, count * channels, height + 2 * radius, -1)
    rows = conv2d(rows, kernel[:, None, :, None], groups=count * channels)
    return conv2d(rows, kernel[:, None, None, :], groups=count * channels).view_as(images)


def covered(images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Each image (N, C, H, W) under a rectangle of one colour, whose sides are 25 to 55 % of those of the image."""
    count, channels, *shape = images.shape
    size = torch.tensor(shape)
    side = (0.25 + 0.3 * torch.rand(count, 2, generator=generator)) * size
    corner = torch.rand(count, 2, generator=generator) * (size - side)
    colour = 2 * torch.rand(count, channels, 1, 1, generator=generator) - 1
    inside = []
    for axis in range(2):
        centre = torch.arange(shape[axis]) + 0.5
        start, end = corner[:, axis : axis + 1], (corner + side)[:, axis : axis + 1]
        inside.append((centre > start) & (centre < end))
    mask = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(mask.to(images.device), colour.to(images), images)


def _another(count: int, generator: torch.Generator) -> Tensor:
    """Another image for each of `count`, (count,): the next one in a random circle, so never the image itself."""
    circle = torch.randperm(count, generator=generator)
    return torch.empty_like(circle).scatter_(0, circle, circle.roll(1))


def _unit(images: Tensor) -> float:
    return (min(images.shape[2:]) / 8) ** 0.5


def _noise(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(images.shape, generator=generator).to(images)


def _column(values: Tensor, images: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1).to(images)
