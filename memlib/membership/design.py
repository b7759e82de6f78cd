"""Who sees what: random halves of one pool with their complements, and the models that may judge a target."""

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.shapes import Bool, Shaped


def halves(
    n: int, pairs: int, generator: torch.Generator, groups: Shaped[Tensor, "..."] | None = None
) -> Bool[Tensor, "{2*pairs} {n}"]:
    """Random halves of n images, (2 pairs, n): row 2k is a half, and row 2k + 1 is its complement.

    Every image is then seen by half of the models, and every model by the same share of the pool, so that membership is
    a fair coin and no image or model is special. Carlini et al. 2022, sec. VI, have one such design; complements are
    ours. For an odd n the halves differ by one image, and a coin says which is larger.

    Arguments:
        n: the number of images.
        pairs: the number of pairs of complements.
        generator: the random numbers, of the CPU.
        groups: (n,) integers. Images of one group, such as copies of one photograph, share the coin. The groups are
            dealt in random order from the largest to the smallest, each to the smaller half: the halves differ by no
            more than the largest group, and by one image at most where enough images stand alone.

    Returns:
        True where a model sees an image, on the CPU.

    Raises:
        Refused: for fewer than two images or groups, no pair, and groups that are not (n,) integers.
    """
    if n < 2 or pairs < 1:
        raise Refused(f"halves need 2 or more images and 1 or more pairs, not {n} and {pairs}")
    if groups is None:
        rows = [_half(n, generator) for _ in range(pairs)]
    else:
        if groups.shape != (n,) or groups.is_floating_point() or groups.is_complex() or groups.dtype == torch.bool:
            raise Refused(f"groups are (n,) = ({n},) integers, not {groups.dtype} of shape {tuple(groups.shape)}")
        _, owner, sizes = groups.cpu().unique(return_inverse=True, return_counts=True)
        if len(sizes) < 2:
            raise Refused(f"all {n} images are of one group, which no half can divide: give two groups or more")
        rows = [_dealt(sizes, generator)[owner] for _ in range(pairs)]
    seen = torch.stack(rows)
    return torch.stack((seen, ~seen), 1).flatten(0, 1)


def _half(n: int, generator: torch.Generator) -> Tensor:
    """True for n // 2 or n - n // 2 random images of n, (n,)."""
    row = torch.zeros(n, dtype=torch.bool)
    row[torch.randperm(n, generator=generator)[: n // 2]] = True
    return row ^ _coin(generator)


def _dealt(sizes: Tensor, generator: torch.Generator) -> Tensor:
    """True for the groups of the half, (G,), dealt from the largest, ties in random order, each to the smaller side."""
    order = torch.randperm(len(sizes), generator=generator)
    order = order[sizes[order].argsort(descending=True, stable=True)]
    chosen, lead = [], 0  # how many images the half is ahead
    for size in sizes[order].tolist():
        mine = lead < 0 or (lead == 0 and _coin(generator))
        chosen.append(mine)
        lead += size if mine else -size
    row = torch.empty(len(sizes), dtype=torch.bool)
    row[order] = torch.tensor(chosen)
    return row


def _coin(generator: torch.Generator) -> bool:
    return bool(torch.randint(2, (), generator=generator))


def shadows(target: int, models: int, count: int | None = None) -> list[int]:
    """The models that may judge a target: all but itself and its complement, `target ^ 1`, by whole pairs.

    The complement has to go. In a balanced design every image is in exactly half of the models. Leave out the target
    alone, and the images that it saw are in one shadow less than the others (7 or 8 of 15): the number of shadows tells
    membership. A test whose errors depend on that number then differs from .5 on pure noise (LiRA with a deviation for
    each image has an AUC of .4875). Without the complement every image is in half of the shadows again.

    Arguments:
        target: the row of the target in `halves`.
        models: the number of rows, 2 pairs.
        count: how many shadows to take, the first ones; None takes all models - 2.

    Returns:
        The rows of the shadows, a list of integers, ascending.

    Raises:
        Refused: for a number of models that is odd or below 4, a target that is none of them, and a count that is odd
            or not between 2 and models - 2.
    """
    if models < 4 or models % 2:
        raise Refused(f"models come in 2 or more pairs of complements, not as {models}: see membership.halves")
    if not 0 <= target < models:
        raise Refused(f"target {target} is none of {models} models: give 0 to {models - 1}")
    others = [model for model in range(models) if model // 2 != target // 2]
    if count is None:
        return others
    if count % 2 or not 2 <= count <= len(others):
        raise Refused(f"shadows are taken by whole pairs: give an even count from 2 to {len(others)}, not {count}")
    return others[:count]
