"""The images before any model: copies of one another, placeholders, range, and the blind baseline."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from memlib import data, membership
from memlib.errors import Refused
from memlib.membership._blind import FOLDS
from memlib.stored import Rows, choose, filled, joined, parts, span

_MANY = 10  # so many copies of one image make a placeholder
_FLAT = 0.02  # an image whose values spread less than this shows nothing
_SIDE = 16  # pixels of a side for the blind classifier
_MOST = 3000  # images of a set that it is fitted to: an interval is then 0.03 wide


@dataclass(frozen=True)
class Findings:
    """What the images say by themselves.

    Attributes:
        group: the first copy of each training image, (N,).
        exact, near: training images that repeat an earlier one, in every pixel or nearly so.
        clusters: the training images of each group of two or more, largest group first.
        leaked: the held-out images that are copies of training images, (L,); they are left out.
        kept: the others, one of each group of copies, (K,).
        placeholders: training images that stand for nothing, (P,): without content, or one image very often.
        low, high: the range of values.
        blind: AUC of a classifier that sees no model, and its interval; None without held-out images.
    """

    group: Tensor
    exact: int
    near: int
    clusters: list[list[int]]
    leaked: Tensor
    kept: Tensor
    placeholders: Tensor
    low: float
    high: float
    blind: tuple[float, tuple[float, float]] | None

    @property
    def distinct(self) -> Tensor:
        """One training image of each group, (K,)."""
        return self.group.unique()

    @property
    def told_apart(self) -> bool:
        """Whether training and held-out images can be told apart without a model."""
        return self.blind is not None and self.blind[1][0] > 0.5


def look(train: Rows, held_out: Rows | None, seed: int = 0) -> Findings:
    """Find copies, placeholders and the range of training images (N, C, H, W), and compare with held-out ones.

    Arguments:
        train: (N, C, H, W) in [-1, 1], in memory or on disk.
        held_out: (M, C, H, W), or None.
        seed: of the folds of the blind classifier, and of its images where there are many.

    Raises:
        Refused: for one training image, for a training set of one image, and if all held-out images are copies of
            training images.
    """
    if len(train) < 2:
        raise Refused(f"the training set has {len(train)} image: give 2 or more, a copy is judged against the others")
    n = len(train)
    both = train if held_out is None else joined(train, held_out)
    near, exact = data.copies(both), data.copies(train, near=0)
    group, beyond = near[:n], near[n:]
    leaked = torch.isin(beyond, group).nonzero()[:, 0]
    if len(beyond) and len(leaked) == len(beyond):
        raise Refused(f"all {len(beyond)} held-out images are copies of training images: give images it never saw")
    sizes, first = torch.bincount(group, minlength=n), group.unique()
    if len(first) < 2:
        raise Refused(f"the {n} training images are copies of one image: give a set of several")
    members = group.argsort(stable=True).split(sizes[first].tolist())  # of each group, ascending
    clusters = [one.tolist() for one in members if len(one) > 1]
    flat = filled(n, (part.flatten(1).std(1) for part in parts(train))) < _FLAT
    alone = exact.unique().numel()
    kept, blind = _firsts(beyond, leaked), None
    if held_out is not None and min(len(kept), len(first)) >= FOLDS:
        blind = membership.blind(_described(train, first, seed), _described(held_out, kept, seed), seed)
    low, high = span(train)
    return Findings(
        group=group,
        exact=n - alone,
        near=alone - len(first),
        clusters=sorted(clusters, key=lambda one: (-len(one), one)),
        leaked=leaked,
        kept=kept,
        placeholders=(flat | (sizes[group] >= _MANY)).nonzero()[:, 0],
        low=low,
        high=high,
        blind=blind,
    )


def _firsts(group: Tensor, left_out: Tensor) -> Tensor:
    """The first position of each group (M,) that is not left out, ascending."""
    seen: dict[int, int] = {}
    for position, name in enumerate(group.tolist()):
        seen.setdefault(name, position)
    gone = set(group[left_out].tolist())
    return torch.tensor([place for name, place in seen.items() if name not in gone], dtype=torch.int64)


def _described(images: Rows, places: Tensor, seed: int) -> Tensor:
    """What the blind classifier sees of the images at these places, or of `_MOST` of them that are drawn by seed."""
    drawn = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))[:_MOST].sort().values
    return filled(len(drawn), map(_features, parts(choose(images, places[drawn]))))


def _features(images: Tensor) -> Tensor:
    """(N, D): the image at low resolution, and its brightness, contrast and detail.

    Brightness, contrast and detail differ between sets of another camera, format or resizing, and are not linear in
    the pixels.
    """
    small = F.adaptive_avg_pool2d(images, min(_SIDE, *images.shape[2:])).flatten(1)
    detail = (images[..., 1:] - images[..., :-1]).abs().mean((2, 3))
    return torch.cat([small, images.mean((2, 3)), images.std((2, 3)), detail], 1)
