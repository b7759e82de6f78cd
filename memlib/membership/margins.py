"""The statistic of a classifier: how far the right label leads, from logits."""

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.shapes import Float, Shaped


def margin(logits: Float[Tensor, "*s k"], labels: Shaped[Tensor, "..."]) -> Float[Tensor, "*s"]:
    """log(p_y / (1 - p_y)) of the right label y, computed as l_y - logsumexp of the other logits.

    This is the logit-scaled confidence phi of Carlini et al. 2022, sec. VI.A, in the stable form of their appendix. Its
    distribution over models is near normal. From probabilities it cannot be had: in float32, p = 1 - 1e-9 is 1, and
    its margin infinite. The log-probability for `rmia` is `logsigmoid(margin)`.

    Arguments:
        logits: (*S, K), before the softmax, K >= 2 classes.
        labels: (*S), the right class of each, integers from 0 to K - 1.

    Returns:
        (*S), in the dtype of the logits; larger is more member-like.

    Raises:
        Refused: for one class, labels of another shape or that are no class, and logits that are not finite.
    """
    classes = logits.shape[-1]
    if classes < 2:
        raise Refused(f"a margin compares 2 or more classes, not {classes}")
    if labels.shape != logits.shape[:-1] or labels.is_floating_point() or labels.dtype == torch.bool:
        told = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise Refused(f"logits {tuple(logits.shape)} need integer labels {tuple(logits.shape[:-1])}, not {told}")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise Refused(f"labels from {int(labels.min())} to {int(labels.max())} are not 0 to {classes - 1}")
    if not logits.isfinite().all():
        raise Refused(f"{int((~logits.isfinite()).sum())} logits are not finite: look at the classifier behind them")
    own = labels[..., None].long()
    rest = logits.scatter(-1, own, -torch.inf)
    return logits.gather(-1, own)[..., 0] - rest.logsumexp(-1)
