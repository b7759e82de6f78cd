"""A token that shows the generator an image: the "[Intra-class Visual Guidance]" of Real-Fake's prompts, sec. 3.2.

The paper names an intra-class feature. The released code puts the CLIP embedding of the very image that is noised in
place of the last of the text's hidden states; it computes a mean beside it and does not use it. All three are here,
since the choice decides what a synthetic image is told of a real one.
"""

from typing import Literal

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.random import keyed
from memlib.shapes import Float, Int

Whose = Literal["own", "other", "mean"]
"""Whose embedding is the token of an image: its own (as released), another's of its class, or the mean of its class."""


def tokens(
    embeddings: Float[Tensor, " n d"], labels: Int[Tensor, " n"], whose: Whose = "own", *,
    width: int | None = None, seed: int = 0,
) -> Float[Tensor, " n w"]:  # fmt: skip
    """The visual token of each image, (N, W).

    Arguments:
        embeddings: (N, D) of the images, such as those of `features.clip(folder)`. The paper's are of CLIP ViT-L/14,
            not normalised, with D = 768, the text width of Stable Diffusion 1.x.
        labels: the class of each image, (N,).
        whose: see `Whose`. The mean of a class contains the image itself.
        width: W of the text encoder; None is D. Where it differs, the embeddings pass a fixed linear map, `projection`.
        seed: draws the other images, and the map.

    Raises:
        Refused: for shapes that do not pair, embeddings that are not finite, and "other" where a class has one image.
    """
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        shapes = f"{tuple(embeddings.shape)} and {tuple(labels.shape)}"
        raise Refused(f"embeddings are (N, D) with labels (N,), not {shapes}: give those of the same images")
    if not embeddings.isfinite().all():
        raise Refused("embeddings hold NaN or infinite numbers: look at the images and at the embedder")
    if whose == "own":
        chosen = embeddings
    elif whose == "other":
        chosen = embeddings[_others(labels.cpu(), keyed(seed, 0)).to(embeddings.device)]
    elif whose == "mean":
        _, index, counts = labels.to(embeddings.device).unique(return_inverse=True, return_counts=True)
        sums = embeddings.new_zeros(len(counts), embeddings.shape[1]).index_add(0, index, embeddings)
        chosen = (sums / counts[:, None])[index]
    else:
        raise Refused(f"a token is one's own, other or mean, not {whose!r}")
    if width is None or width == chosen.shape[1]:
        return chosen
    return chosen @ projection(chosen.shape[1], width, seed).to(chosen)


def projection(dim: int, width: int, seed: int = 0) -> Float[Tensor, " d w"]:
    """A fixed linear map (D, W) with orthonormal columns, or rows where W > D. Ours: the paper's widths are equal.

    It is not trained; for W >= D it keeps lengths and angles.
    """
    tall = torch.randn(max(dim, width), min(dim, width), generator=keyed(seed, 1), dtype=torch.float64)
    basis = torch.linalg.qr(tall).Q.float()
    return basis if dim >= width else basis.T


def with_tokens(hidden: Float[Tensor, " b l w"], tokens: Float[Tensor, " b w"]) -> Float[Tensor, " b l w"]:
    """Hidden states (B, L, W) of texts, the last of L replaced by the tokens (B, W). As in the released training."""
    return torch.cat([hidden[:, :-1], tokens.to(hidden)[:, None]], 1)


def _others(labels: Tensor, generator: torch.Generator) -> Tensor:
    """The position of another image of the same class for each, drawn uniformly, (N,)."""
    chosen = torch.empty_like(labels)
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten()
        if len(rows) < 2:
            raise Refused(f"class {int(label)} has one image, so there is no other: give more, or whose='own'")
        ahead = torch.randint(1, len(rows), (len(rows),), generator=generator)  # never 0, which is the image itself
        chosen[rows] = rows[(torch.arange(len(rows)) + ahead) % len(rows)]
    return chosen
