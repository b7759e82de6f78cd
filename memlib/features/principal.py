"""Pixels and their principal components: features that are fitted in closed form.

A reference set, disjoint from the images that are scored, determines what is subtracted and rescaled. The fit is done
once, in float64. Of a reference on disk it reads parts: min(M, D)^2 numbers and the components are in memory, and what
is fitted differs from that in memory by rounding, most where a component has little variance.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.features._range import Span, in_range, span_of
from memlib.metrics import Moments
from memlib.shapes import Float, Shaped
from memlib.stored import Rows, Stored, each, filled, mapped, mean_row, parts

Embed = Callable[[Any], Tensor]
"""Images (N, C, H, W) -> features (N, D). It takes a set on disk too: its features are in memory, except for pixels,
which are as many as the images have and stay on disk."""

_FLAT = 1e-12  # a component with less than this fraction of the largest variance is rounding, not data


def pixels(images: Shaped[Rows, " n *s"]) -> Shaped[Rows, "n d"]:
    """The pixels themselves, (N, C, H, W) -> (N, D) with D = C H W."""
    return images.flatten(1)


def centred(reference: Rows) -> Embed:
    """Pixels minus the mean of `reference` (M, C, H, W): a cosine then compares what is specific to an image.

    Returns:
        An embedder (N, C, H, W) -> (N, D), on the device and in the dtype of its images.

    Raises:
        Refused: for a reference that is empty or of integers; the embedder itself for images of another shape or of
            integers. It warns of images in another range than the reference, such as [0, 1].
    """
    mean, alike = mean_row(_matrix(reference)), _alike(reference, "centred")

    def embed(images: Any) -> Any:
        return mapped(alike(images), lambda rows: rows - mean.to(rows))

    return embed


def half_whitened(reference: Rows, k: int | None = None) -> Embed:
    """Principal components of `reference` (M, C, H, W), each divided by the square root of its standard deviation.

    With the covariance U diag(l) U^T of the reference, embed(x) = diag(l^-1/4) U_k^T (x - mean). This is half-way
    between the plain cosine (power 0), which a few smooth components dominate, and full whitening (power 1/2), where
    noise counts as much as content. The largest entry of each component is made positive, so that the features do not
    depend on the LAPACK of the machine.

    Arguments:
        reference: (M, C, H, W), at least two images, in memory or on disk.
        k: the number of components; None keeps all that have variance.

    Returns:
        An embedder (N, C, H, W) -> (N, k).

    Raises:
        Refused: for k outside 1..rank, and for fewer than two images or images of integers; the embedder itself for
            images of another shape or of integers. It warns of images in another range than the reference.
    """
    mean, components, variance = _principal(reference, k)
    kept = len(variance) if k is None else k
    if not 1 <= kept <= len(variance):
        span = f"{len(reference)} reference images of rank {len(variance)}"
        raise Refused(f"{kept} components cannot be taken from {span}: give 1 to {len(variance)}")
    projection = (components[:kept] / variance[:kept, None] ** 0.25).T  # (D, k)
    alike = _alike(reference, "half_whitened")

    def embed(images: Tensor) -> Tensor:
        return each(lambda rows: (rows - mean.to(rows)) @ projection.to(rows), alike(images))

    return embed


def latents(reference: Rows, k: int) -> tuple[Embed, Embed]:
    """The first k principal coordinates as a latent space.

    The projection is orthogonal: Gaussian noise stays Gaussian noise, so a diffusion model can work in this space.
    Decoding an encoding is exact if k is the number of pixels; otherwise the variance of the other components is lost.
    If the reference has a rank below k, the latent space has that dimension.

    Arguments:
        reference: (M, C, H, W), at least two images, in memory or on disk.
        k: the dimension of the latent space.

    Returns:
        encode, (N, C, H, W) -> (N, k), and decode, (N, k) -> (N, C, H, W).

    Raises:
        Refused: for fewer than two images; `encode` for images of another shape or of integers. It warns of images in
            another range than the reference.
    """
    mean, components, _ = _principal(reference, k)
    basis, alike = components[:k], _alike(reference, "latents")  # (k, D)

    def encode(images: Tensor) -> Tensor:
        return each(lambda rows: (rows - mean.to(rows)) @ basis.to(rows).T, alike(images))

    def decode(z: Tensor) -> Tensor:
        return (z @ basis.to(z) + mean.to(z)).unflatten(1, reference.shape[1:])

    return encode, decode


def _principal(
    reference: Rows, most: int | None = None
) -> tuple[Float[Tensor, " d"], Float[Tensor, "k d"], Float[Tensor, " r"]]:
    """Mean (D,), principal components (k, D) with fixed signs, and the variances of all of them (r,), largest first, in
    float64. `most` or more components are returned, or all r that there are."""
    rows = _matrix(reference)
    if len(rows) < 2:
        raise Refused(f"principal components need at least 2 reference images, not {len(rows)}")
    if isinstance(rows, Stored):
        mean, components, variance = _in_parts(rows, most)
    else:
        mean = rows.mean(0)
        _, singular, components = torch.linalg.svd(rows - mean, full_matrices=False)
        variance = singular.square() / (len(rows) - 1)
    rank = int((variance > _FLAT * variance[0]).sum())
    signs = components.gather(1, components.abs().argmax(1, keepdim=True)).sign()
    return mean, (components * signs)[:rank], variance[:rank]


def _in_parts(rows: Stored, most: int | None) -> tuple[Float[Tensor, " d"], Float[Tensor, "k d"], Float[Tensor, " r"]]:
    """Mean, components and variances of rows (M, D) on disk: of their covariance, or of their products if M < D."""
    count, width = rows.shape
    if count > width:
        moments = Moments(width).update(rows)
        variance, components = torch.linalg.eigh(moments.covariance)  # ascending
        return moments.mean, components.T.flip(0)[:most], variance.flip(0)
    mean = mean_row(rows)
    apart = rows.map(lambda part: part - mean)
    products = filled(count, (each(lambda other, part=part: other @ part.T, apart).T for part in parts(apart)))
    values, vectors = torch.linalg.eigh(products)
    vectors, first = vectors.flip(1)[:, :most], 0
    components = torch.zeros(vectors.shape[1], width, dtype=torch.float64)
    for part in parts(apart):
        components += vectors[first : first + len(part)].T @ part
        first += len(part)
    return mean, components / components.norm(dim=1, keepdim=True), values.flip(0) / (count - 1)


def _matrix(reference: Rows) -> Rows:
    """The reference as rows (M, D) in float64, or Refused."""
    if len(reference.shape) < 2 or len(reference) == 0:
        raise Refused(f"a reference is a non-empty set of images (M, C, H, W), not of shape {tuple(reference.shape)}")
    return in_range(reference, "a reference", _span(reference)).flatten(1).double()


def _span(reference: Rows) -> Span:
    return span_of(reference if isinstance(reference, Stored) else torch.as_tensor(reference))


def _alike(reference: Rows, what: str) -> Embed:
    """Images (N, C, H, W) -> rows (N, D); Refused if their shape differs from the reference, with a warning if their
    range does."""
    span, shape = _span(reference), tuple(reference.shape[1:])

    def rows(images: Tensor) -> Tensor:
        images = in_range(images, what, span)
        if tuple(images.shape[1:]) != shape:
            given = tuple(images.shape[1:])
            raise Refused(f"these features were fitted to images of shape {shape}, not {given}: give images like these")
        return images.flatten(1)

    return rows
