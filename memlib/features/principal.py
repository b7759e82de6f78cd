"""Pixels and their principal components: features that are fitted in closed form.

A reference set, disjoint from the images that are scored, fixes what is subtracted and rescaled; it is fitted once in
float64 and kept in the dtype of the reference.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from memlib.errors import Refused

Embed = Callable[[Tensor], Tensor]

_FLAT = 1e-12  # share of the largest variance below which a component is rounding, not data


def pixels(images: Tensor) -> Tensor:
    """The images as they are, (N, C, H, W) -> (N, D) with D = C H W."""
    return images.flatten(1)


def centred(reference: Tensor) -> Embed:
    """Pixels minus the mean of `reference` (M, C, H, W): a cosine then compares what is particular to an image.

    Returns embed: (N, C, H, W) -> (N, D), on the device and in the dtype of its images. Raises Refused for an empty
    reference; embed raises it for images of another shape.
    """
    mean = _matrix(reference).mean(0)

    def embed(images: Tensor) -> Tensor:
        return _alike(images, reference) - mean.to(images)

    return embed


def half_whitened(reference: Tensor, k: int | None = None) -> Embed:
    """Principal components of `reference` (M, C, H, W), each divided by the square root of its standard deviation.

    With the covariance U diag(l) U^T of the reference, embed(x) = diag(l^-1/4) U_k^T (x - mean), (N, C, H, W) ->
    (N, k): half-way between plain cosine (power 0), which a few smooth components rule, and full whitening (power
    1/2), where noise counts as much as content. k=None keeps every component with variance. Signs make the largest
    entry of each component positive, so the features do not depend on the machine's LAPACK. Raises Refused for k
    outside 1..rank and for a reference of fewer than two images; embed for images of another shape.
    """
    mean, components, variance = _principal(reference)
    kept = len(variance) if k is None else k
    if not 1 <= kept <= len(variance):
        span = f"{len(reference)} reference images of rank {len(variance)}"
        raise Refused(f"{kept} components were asked of {span}: give 1 to {len(variance)}")
    projection = (components[:kept] / variance[:kept, None] ** 0.25).T  # (D, k)

    def embed(images: Tensor) -> Tensor:
        return (_alike(images, reference) - mean.to(images)) @ projection.to(images)

    return embed


def latents(reference: Tensor, k: int) -> tuple[Embed, Embed]:
    """The first k principal coordinates as a latent space: encode, (N, C, H, W) -> (N, k), and decode, back again.

    An orthogonal projection, so that Gaussian noise stays Gaussian noise and a diffusion model may work in it; where
    the reference (M, C, H, W) has rank less than k, that many. Decoding an encoding is exact if k is the number of
    pixels and loses the variance of the other components if not. Raises Refused as `half_whitened` does.
    """
    mean, components, _ = _principal(reference)
    basis = components[:k]  # (k, D)

    def encode(images: Tensor) -> Tensor:
        return (_alike(images, reference) - mean.to(images)) @ basis.to(images).T

    def decode(z: Tensor) -> Tensor:
        return (z @ basis.to(z) + mean.to(z)).unflatten(1, reference.shape[1:])

    return encode, decode


def _principal(reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), principal components (r, D) with fixed signs and their variances (r,), largest first, in float64."""
    rows = _matrix(reference)
    if len(rows) < 2:
        raise Refused(f"principal components need at least 2 reference images, not {len(rows)}")
    mean = rows.mean(0)
    _, singular, components = torch.linalg.svd(rows - mean, full_matrices=False)
    variance = singular.square() / (len(rows) - 1)
    rank = int((variance > _FLAT * variance[0]).sum())
    signs = components.gather(1, components.abs().argmax(1, keepdim=True)).sign()
    return mean, (components * signs)[:rank], variance[:rank]


def _matrix(reference: Tensor) -> Tensor:
    """The reference as float64 rows (M, D), or Refused."""
    if reference.dim() < 2 or len(reference) == 0:
        raise Refused(f"a reference is a non-empty set of images (M, C, H, W), not of shape {tuple(reference.shape)}")
    return reference.flatten(1).double()


def _alike(images: Tensor, reference: Tensor) -> Tensor:
    """The images as rows (N, D), or Refused if they differ in shape from the reference."""
    if images.shape[1:] != reference.shape[1:]:
        wanted, given = tuple(reference.shape[1:]), tuple(images.shape[1:])
        raise Refused(f"these features were fitted to images of shape {wanted}, not {given}: give images of that shape")
    return images.flatten(1)
