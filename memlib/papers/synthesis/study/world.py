"""The images of the study: a pool that a coin deals, images to test on, and a reference that fits the coordinates."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from memlib import features
from memlib.features import Embed
from memlib.papers.synthesis.pool import Pool


@dataclass(frozen=True)
class World:
    """One source: its pool and test images in coordinates (N, *S), and the reference as images (M, C, H, W).

    `test_labels` (M,) are right. No image of one part is a copy of one in another. Nothing about the pool enters the
    coordinates or the descriptor.
    """

    name: str
    description: str
    pool: Pool
    test: Tensor
    test_labels: Tensor
    reference: Tensor
    coordinates: Literal["centred", "principal"]
    latent: int


def coders(world: World) -> tuple[Embed, Embed]:
    """Encode and decode: images (N, C, H, W) to coordinates (N, *S), and back."""
    return coders_of(world.reference, world.coordinates, world.latent)


def descriptor(world: World) -> Embed:
    """Coordinates (N, *S) -> descriptors (N, k) whose cosine compares images; fitted on the reference."""
    return descriptor_of(world.reference, coders(world)[1])


def descriptor_of(reference: Tensor, decode: Embed) -> Embed:
    """`descriptor` of coordinates that `decode` turns into images, fitted on a reference (M, C, H, W)."""
    embed = features.half_whitened(reference, min(40, len(reference) // 2))
    return lambda z: embed(decode(z).clamp(-1, 1))


def coders_of(reference: Tensor, coordinates: str, latent: int) -> tuple[Embed, Embed]:
    """`coders` fitted on a reference (M, C, H, W)."""
    if coordinates == "principal":
        return features.latents(reference, latent)
    centre = reference.mean(0)
    return (lambda images: images - centre), (lambda z: z + centre)
