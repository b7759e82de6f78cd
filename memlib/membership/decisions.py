"""From a statistic to a decision: p-values of single images, corrected for their number, and one of the whole set."""

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.shapes import Bool, Float, Shaped


def conformal(statistic: Shaped[Tensor, " n"], others: Shaped[Tensor, " m"]) -> Float[Tensor, " n"]:
    """A p-value for each image: the share of held-out images that look at least as much like members, (N,).

    p = (1 + how many of the M others are at least as large) / (M + 1). For an image that is exchangeable with the
    others, P(p <= a) <= a holds exactly, ties included. Vovk et al. 2005; Bates et al. 2023.

    Arguments:
        statistic: (N,), larger for members.
        others: (M,), the same of images that the model did not see.

    Raises:
        Refused: for no others, and for NaN.
    """
    if not len(others) or statistic.isnan().any() or others.isnan().any():
        raise Refused(f"p-values need held-out statistics without NaN, but were given {len(others)}: look at them")
    ascending = others.double().sort().values
    below = torch.searchsorted(ascending, statistic.double())
    return (1 + len(others) - below).double() / (len(others) + 1)


def discoveries(p: Shaped[Tensor, " n"], level: float = 0.1) -> Bool[Tensor, " n"]:
    """The images called members so that at most a share `level` of them is wrong in the mean, (N,). Benjamini and
    Hochberg 1995.

    It holds for conformal p-values that share their held-out images (Bates et al. 2023, theorem 2).

    Arguments:
        p: (N,) p-values.
        level: the false-discovery rate.

    Raises:
        Refused: for a level outside (0, 1), and for p-values outside [0, 1].
    """
    if not 0 < level < 1 or not ((p >= 0) & (p <= 1)).all():
        raise Refused(f"discoveries need p-values in [0, 1] and a level between 0 and 1, not {level}")
    values, count = p.double().sort().values, len(p)
    passed = values <= level * torch.arange(1, count + 1, device=p.device) / count
    if not passed.any():
        return torch.zeros(count, dtype=torch.bool, device=p.device)
    return p.double() <= values[passed.nonzero().max()]


def set_p_value(statistic: Shaped[Tensor, " n"], others: Shaped[Tensor, " m"]) -> float:
    """The p-value of "the model was not trained on this set": one-sided Mann and Whitney 1947, a scalar.

    Dataset inference (Maini et al. 2021): the set as a whole gives itself away long before its single images do.

    Arguments:
        statistic: (N,), of the images of the set; copies of one image count once.
        others: (M,), of held-out images.
    """
    from scipy.stats import mannwhitneyu  # takes as long to import as torch

    return float(mannwhitneyu(statistic.cpu().double(), others.cpu().double(), alternative="greater").pvalue)
