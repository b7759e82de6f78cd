"""What is hidden and what is known, as every family reads it: T(x) of I2I eq. 1, and known pixels put back untouched.

A mask is bool, True where a pixel is hidden: (H, W) for a whole batch, or (n, 1, H, W) as `masks` makes them. Images
are standardised, so that 0, which stands in hidden places, is their mean.
"""

import torch
from torch import Tensor

from memlib.errors import Refused


def hide(images: Tensor, mask: Tensor) -> Tensor:
    """The images (B, C, H, W) with hidden pixels at 0: T(x)."""
    return images.masked_fill(mask, 0.0)


def paste(images: Tensor, made: Tensor, mask: Tensor) -> Tensor:
    """`made` (B, C, H, W) where hidden, and elsewhere the known pixels of `images`, exactly as they are."""
    return torch.where(mask, made, images)


def hidden_tokens(mask: Tensor, batch: int, patch: int) -> Tensor:
    """(B, L) bool, True where a patch of `patch` pixels a side is hidden, in reading order, for a batch of that size.

    Raises Refused where patches do not fill the mask, where one is hidden in part, and where images of one batch have
    different numbers of hidden patches: a transformer that leaves them out needs sequences of one length.
    """
    height, width = mask.shape[-2:]
    if height % patch or width % patch:
        raise Refused(f"patches of {patch} pixels do not fill a mask of {height}x{width}: give another size of patch")
    cells = mask.reshape(-1, height // patch, patch, width // patch, patch).movedim(3, 2).flatten(3)  # (n, h, w, p^2)
    hidden = cells.all(3).flatten(1)
    if not torch.equal(hidden, cells.any(3).flatten(1)):
        raise Refused(f"the mask cuts through patches of {patch} pixels: make it with this size of patch")
    if len(hidden) > 1 and len(hidden.sum(1).unique()) > 1:
        raise Refused("images of one batch must have equally many hidden patches: draw masks of one ratio")
    return hidden.expand(batch, -1)
