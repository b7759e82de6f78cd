"""The statistic of a published set of images: how near its nearest image is."""

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.shapes import Float, Shaped
from memlib.stored import Rows, at_once, choose, each, filled, mean_row

_ROWS, _COLUMNS = 1024, 4096  # a block of products held at once


@torch.no_grad()
def nearest_distance(
    x: Shaped[Rows, "..."],
    published: Shaped[Rows, "..."],
    labels: Shaped[Tensor, "..."] | None = None,
    published_labels: Shaped[Tensor, "..."] | None = None,
) -> Float[Tensor, " n"]:
    """Minus the L2 distance to the nearest published image, or to the nearest one of the same label.

    The full black-box attack of Chen et al. 2020 (GAN-Leaks), uncalibrated. A blurred copy may be farther than another
    image of the class: use features for `x` and `published` where that matters. A large distance proves no privacy.

    Arguments:
        x: (N, *S), images or features, in memory or on disk.
        published: (M, *S), the same of the published set.
        labels: (N,) integers, and
        published_labels: (M,) integers; both or neither.

    Returns:
        (N,) in float64; 0 for a copy. The nearest is found by products in float64, in blocks, and its distance
        computed from differences.

    Raises:
        Refused: for nothing published, other shapes, values that are not finite, and a label that nobody published.
    """
    if not len(published) or x.shape[1:] != published.shape[1:]:
        raise Refused(f"images {tuple(x.shape)} and published images {tuple(published.shape)} are of one shape, M >= 1")
    mine, theirs = x.flatten(1).double(), published.flatten(1).double()
    for name, rows in (("image", mine), ("published image", theirs)):
        finite = each(lambda part: part.isfinite().all(1), rows)
        if not finite.all():
            raise Refused(f"{name} {int((~finite).nonzero()[0])} is not finite: look at its source")
    if labels is None and published_labels is None:
        return -_nearest(mine, theirs)
    if labels is None or published_labels is None:
        raise Refused("labels are compared with published labels: give both, or neither")
    if labels.shape != (len(x),) or published_labels.shape != (len(published),):
        told = f"{tuple(labels.shape)} and {tuple(published_labels.shape)}"
        raise Refused(f"labels are ({len(x)},) and published labels ({len(published)},), not {told}")
    distance = torch.empty(len(mine), dtype=torch.float64, device=mine.device)
    for label in labels.unique().tolist():
        own, same = labels == label, published_labels == label
        if not same.any():
            raise Refused(f"no published image has the label {label}: leave these images out, or give no labels")
        distance[own] = _nearest(choose(mine, own), choose(theirs, same))
    return -distance


def _nearest(queries: Rows, rows: Rows) -> Tensor:
    """The distance from each query (N, D) to its nearest row (M, D), (N,)."""
    centre = mean_row(rows)  # products cancel less about the centre
    tiles = queries.split(at_once(_ROWS, queries, rows))
    found = filled(len(queries), (_nearest_of_few(tile, rows, centre) for tile in tiles))
    return found.to(centre)


def _nearest_of_few(tile: Tensor, rows: Rows, centre: Tensor) -> Tensor:
    least = tile.new_full((len(tile),), torch.inf)
    place = torch.zeros(len(tile), dtype=torch.long, device=tile.device)
    columns, moved = at_once(_COLUMNS, rows), tile - centre
    for start in range(0, len(rows), columns):
        part = rows[start : start + columns] - centre
        value, index = torch.addmm(part.square().sum(1), moved, part.T, alpha=-2).min(1)
        nearer = value < least
        least, place = torch.where(nearer, value, least), torch.where(nearer, index + start, place)
    return (tile - rows[place]).norm(dim=1)
