"""What is hidden from a completion model: seven tasks, each a mask of whole patches, True where hidden.

A mask is bool, (n, 1, size, size), and broadcasts over images (B, C, size, size); n is 1 but for random masks. Patches
are what a transformer takes for a token: 16 pixels a side in the paper (appendix C.3), fewer on small images.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from memlib.errors import Refused

Task = Literal["centre", "random", "up", "down", "left", "right", "outpaint"]
TASKS: tuple[Task, ...] = ("centre", "random", "up", "down", "left", "right", "outpaint")


def mask(
    task: Task, size: int, patch: int, ratio: float, n: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """The mask of a task, (1, 1, size, size); for random patches n masks, (n, 1, size, size).

    The sides of a square are whole patches: of 16 x 16, ratio 0.25 hides the 8 x 8 in the middle as `centre`, the upper
    4 rows as `up`, all but the 14 x 14 in the middle as `outpaint`.

    Arguments:
        task: one of `TASKS`.
        size: pixels a side of the image.
        patch: pixels a side of a patch.
        ratio: fraction of the patches to hide; what the grid allows may differ.
        n: masks, and generator: of their draws, for `random`.

    Raises:
        Refused: for another task, a size that patches do not fill, and where nothing or everything would be hidden.
    """
    grid = _grid(size, patch)
    if not 0 < ratio < 1:
        raise Refused(f"a mask hides a fraction between 0 and 1 of the patches, both excluded, not {ratio}")
    if task == "centre":
        return centre(size, patch, round(math.sqrt(ratio) * grid))
    if task == "outpaint":
        return outpaint(size, patch, round(math.sqrt(1 - ratio) * grid))
    if task == "random":
        return scattered(size, patch, ratio, n, generator)
    return extension(task, size, patch, ratio)


def centre(size: int, patch: int, k: int) -> Tensor:
    """The k x k patches in the middle are hidden, (1, 1, size, size): inpainting. I2I table 1 (k = 8) and 2 (k = 4).

    Where k and the grid differ by an odd number, the square lies half a patch up and left. Raises Refused unless
    1 <= k < size / patch.
    """
    grid = _grid(size, patch)
    if not 1 <= k < grid:
        raise Refused(f"a centre of {k} x {k} patches fits no grid of {grid} x {grid}: give 1 to {grid - 1}")
    tokens = torch.zeros(1, grid, grid, dtype=torch.bool)
    start = (grid - k) // 2
    tokens[:, start : start + k, start : start + k] = True
    return _pixels(tokens, patch)


def outpaint(size: int, patch: int, k: int) -> Tensor:
    """All but the k x k patches in the middle is hidden, (1, 1, size, size). Raises Refused as `centre`."""
    return ~centre(size, patch, k)


def extension(side: Literal["up", "down", "left", "right"], size: int, patch: int, ratio: float) -> Tensor:
    """round(ratio * grid) rows or columns of patches on one side are hidden, (1, 1, size, size). I2I appendix E.1.

    Raises Refused for another side, and where that is none of them or all.
    """
    grid = _grid(size, patch)
    rows = round(ratio * grid)
    if not 1 <= rows < grid:
        raise Refused(f"a fraction {ratio} of {grid} rows of patches is {rows}: give one that hides 1 to {grid - 1}")
    tokens = torch.zeros(1, grid, grid, dtype=torch.bool)
    if side == "up":
        tokens[:, :rows] = True
    elif side == "down":
        tokens[:, grid - rows :] = True
    elif side == "left":
        tokens[:, :, :rows] = True
    elif side == "right":
        tokens[:, :, grid - rows :] = True
    else:
        raise Refused(f"there is no task {side!r}: give one of {', '.join(TASKS)}")
    return _pixels(tokens, patch)


def scattered(size: int, patch: int, ratio: float, n: int = 1, generator: torch.Generator | None = None) -> Tensor:
    """round(ratio * patches) patches drawn at random are hidden in each of n masks, (n, 1, size, size), as MAE trains.

    Every mask hides equally many, so that what is seen makes one batch of tokens. Raises Refused where that is none of
    them or all.
    """
    grid = _grid(size, patch)
    hidden = round(ratio * grid**2)
    if not 1 <= hidden < grid**2:
        raise Refused(f"a fraction {ratio} of {grid**2} patches is {hidden}: give one that hides 1 to {grid**2 - 1}")
    order = torch.rand(n, grid**2, generator=generator).argsort(1)
    return _pixels((order < hidden).view(n, grid, grid), patch)


def _grid(size: int, patch: int) -> int:
    if patch < 1 or size < patch or size % patch:
        raise Refused(f"patches of {patch} pixels do not fill an image of {size}: give a divisor of {size}")
    return size // patch


def _pixels(tokens: Tensor, patch: int) -> Tensor:
    """(n, grid, grid) -> (n, 1, size, size)."""
    return tokens.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None]


# What a family does with a mask.


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
