"""What may happen to an image and leave it the same image: what a copy descriptor is trained on and tested with.

Images are (N, C, H, W) in [-1, 1]. Every random choice is drawn on the CPU, from the generator, for the whole batch.
Lengths are in pixels; they grow with the square root of the size, as 1 of 16 pixels is less of an image than 1 of 8.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, conv2d, grid_sample, interpolate, pad

UNSEEN = ("coarse", "posterized", "gamma", "rotated")
"""The kinds of `planted` that `augment` never makes: what a trained descriptor has to find without practice."""


def augment(images: Tensor, spread: float, generator: torch.Generator, flips: bool = False) -> Tensor:
    """A random altered version of each image, (N, C, H, W), in [-1, 1]: a view for contrastive training.

    Cropped, shifted, partly covered, mixed with the next image of the batch, brightened, noised and blurred, each with
    some probability: the augmentations of Pizzi et al. 2022 that mean something at 8 to 32 pixels. `spread`
    is the deviation of the data about their mean image, to which noise is scaled. flips: mirror half of the images,
    which makes another sign of many a digit.
    """

    def some(share: float) -> Tensor:
        return torch.rand(len(images), generator=generator) < share

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(images), generator=generator)

    unit = _unit(images)
    if flips:
        images = torch.where(_column(some(0.5), images).bool(), images.flip(3), images)
    scale = torch.where(some(0.5), between(0.8, 1.1), 1.0)
    views = moved(images, scale, *(between(-0.7, 0.7) * unit * some(0.6) for _ in range(2)))
    views = torch.where(_column(some(0.25), views).bool(), covered(views, generator), views)
    share = _column(between(0, 0.35) * some(0.25), views)
    views = (1 - share) * views + share * images.roll(1, 0)
    gain, shift = torch.where(some(0.5), between(0.6, 1.2), 1.0), between(-0.2, 0.2) * some(0.5)
    views = _column(gain, views) * views + _column(shift, views)
    views = views + _column(spread * between(0, 0.5) * some(0.6), views) * _noise(views, generator)
    return blurred(views, between(0.05, 0.75) * unit * some(0.6)).clamp(-1, 1)


def planted(images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """One copy of each image of every kind, (N, C, H, W) each, by the name of the kind: copies whose source is known.

    First what a model that memorizes makes (noise that was smoothed away, noise that is left, small shifts, another
    contrast), then what copy detection is used to. Noise is 0.3 of the deviation of the images about their mean.
    """
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
        "mixed": 0.75 * images + 0.25 * images.roll(1, 0),
        "coarse": interpolate(avg_pool2d(images, 2, ceil_mode=True), images.shape[2:]),
        "posterized": (1.5 * images).round() / 1.5,  # four grey levels
        "gamma": 2 * ((images.clamp(-1, 1) + 1) / 2) ** 1.8 - 1,
        "rotated": moved(images, one, 0 * one, 0 * one, 0.12 * sign),
    }
    return {kind: copies.clamp(-1, 1) for kind, copies in kinds.items()}


def moved(images: Tensor, scale: Tensor, right: Tensor, down: Tensor, turn: Tensor | None = None) -> Tensor:
    """Look at each image (N, C, H, W) through a window `scale` times its size, shifted by pixels and turned by radians.

    scale, right, down, turn: (N,). A scale below 1 crops. Resampled bilinearly; beyond the edge the edge goes on.
    """
    height, width = images.shape[2:]
    turn = torch.zeros_like(scale) if turn is None else turn
    along, across = scale * turn.cos(), scale * turn.sin()
    # The grid's unit is half the image, so a turn of pixels that are not square needs their ratio.
    first = torch.stack((along, -across * height / width, 2 * right / width), 1)
    second = torch.stack((across * width / height, along, 2 * down / height), 1)
    grid = affine_grid(torch.stack((first, second), 1).to(images), images.shape, align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def blurred(images: Tensor, std: Tensor) -> Tensor:
    """Each image (N, C, H, W) under a Gaussian of its own width `std` (N,), in pixels; 0 leaves it as it is."""
    count, channels, height, width = images.shape
    radius = max(1, math.ceil(2.5 * float(std.max())))
    distance = torch.arange(-radius, radius + 1.0)
    kernel = torch.exp(-(distance**2) / (2 * std[:, None].clamp_min(1e-3) ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0).to(images)  # (N C, 2 radius + 1)
    rows = pad(images, (radius,) * 4, mode="replicate").reshape(1, count * channels, height + 2 * radius, -1)
    rows = conv2d(rows, kernel[:, None, :, None], groups=count * channels)
    return conv2d(rows, kernel[:, None, None, :], groups=count * channels).view_as(images)


def covered(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (N, C, H, W) with a rectangle of one colour over it, a quarter to half as high and as wide."""
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


def _unit(images: Tensor) -> float:
    return (min(images.shape[2:]) / 8) ** 0.5


def _noise(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(images.shape, generator=generator).to(images)


def _column(values: Tensor, images: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1).to(images)
