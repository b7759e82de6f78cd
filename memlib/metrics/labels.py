"""What labels tell about training images, measured by how much less a class is spread than the whole set."""

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics._arguments import takes_arrays
from memlib.shapes import Shaped
from memlib.stored import Rows, Stored, each, mapped, mean_row, parts


def theorem_limit(class_trace: Tensor, distance: Tensor, whole_trace: Tensor) -> Tensor:
    """2 tr S_c / (tr S_c + |mu - mu_c|^2 + tr S): the ratio of SIDE's theorem 1 as epsilon goes to 0. SIDE eq. 50.

    Arguments:
        class_trace: tr S_c, the trace of the covariance of the class; any shape, as the others.
        distance: |mu - mu_c|^2, the squared distance between the means of the class and of the whole.
        whole_trace: tr S, the trace of the covariance of the whole.
    """
    return 2 * class_trace / (class_trace + distance + whole_trace)


@takes_arrays("points", "labels")
def label_ratio(points: Shaped[Rows, " n *s"], labels: Shaped[Tensor, " n"]) -> float:
    """The ratio of SIDE's theorem 1 for a whole labelling, as epsilon goes to 0: 1 if it says nothing, 0 if it names
    each point.

    The numerator and the denominator of eq. 50 are sums over the points of one class. Here both are summed over all
    classes. With the moments of the points themselves the quotient is the share of the variance that lies within
    classes. Labels drawn by chance have a ratio below 1 too: about 1 - K / N for K labels on N points.

    Arguments:
        points: (N, *S), images or their latents, in memory or on disk.
        labels: (N,), integers.

    Raises:
        Refused: for points that are not finite or all equal, for none, and for another number of labels.
    """
    if not len(points) or labels.shape != points.shape[:1]:
        raise Refused(f"each of {len(points)} points needs one label, (N,), not labels of shape {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise Refused(f"labels are integers, not {labels.dtype}: number the classes")
    flat = points.flatten(1) if isinstance(points, Stored) else points.reshape(len(points), -1)
    rows = flat.to(torch.promote_types(points.dtype, torch.float32))
    if not each(lambda part: part.isfinite().all(1), rows).all():
        raise Refused("points of a labelling must be finite: look at the images or the features behind them")
    centre = mean_row(rows)
    rows = mapped(rows, lambda part: part - centre)
    _, place, sizes = labels.to(rows.device).unique(return_inverse=True, return_counts=True)
    whole, means, first = 0.0, centre.new_zeros(len(sizes), rows.shape[1]), 0
    for part in parts(rows):
        whole += float(part.square().sum())
        means.index_add_(0, place[first : first + len(part)], part)
        first += len(part)
    if whole == 0:
        raise Refused("all points are equal, so no label says anything: give points that differ")
    means /= sizes[:, None]
    within, first = 0.0, 0
    for part in parts(rows):
        within += float((part - means[place[first : first + len(part)]]).square().sum())
        first += len(part)
    return within / whole
