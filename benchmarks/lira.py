"""LiRA of all images at once against loops over images: with scipy.stats.norm, as one writes it first, and without.

All take the same float64 statistics of shadows, and the moments of each image's shadows are part of the work of all.
`agrees` holds where no score differs by more than 1e-9 of its size. Prints one JSON row a peer and size:
`python benchmarks/lira.py`.
"""

import json
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy
import torch
from interleaved import row
from scipy.stats import norm
from torch import Tensor

from memlib.membership import halves, lira
from memlib.random import keyed

PATH, TARGET = "LiRA, online, a deviation for each image", 2.5


def plain(value: float, mean: float, deviation: float) -> float:
    """Log-density of a normal distribution up to a constant."""
    return -0.5 * ((value - mean) / deviation) ** 2 - math.log(deviation)


def by_loop(logpdf: Callable, values: Tensor, shadows: Tensor, inside: Tensor) -> Tensor:
    """Scores (N,) of values (N,), from shadows (M, N) and who saw what, (M, N)."""
    scores, v, s, seen = np.empty(len(values)), values.numpy(), shadows.numpy(), inside.numpy()
    for i in range(len(v)):
        known, other = s[seen[:, i], i], s[~seen[:, i], i]
        above = logpdf(v[i], known.mean(), known.std(ddof=1))
        scores[i] = above - logpdf(v[i], other.mean(), other.std(ddof=1))
    return torch.from_numpy(scores)


def close(theirs: Tensor, ours: Tensor) -> bool:
    """Equal, rounding apart."""
    return torch.allclose(theirs, ours, rtol=1e-9, atol=1e-9)


def main() -> None:
    """Print one row a size."""
    torch.set_num_threads(1)
    for images, models in ((2000, 16), (2000, 256)):
        inside = halves(images, models // 2, keyed(0, models))
        scores = torch.randn(models, images, generator=keyed(1, models), dtype=torch.float64) + 2 * inside
        given = scores[0], scores[2:], inside[2:]
        size, ours = f"N={images}, {models - 2} shadows", partial(lira, *given, variance="example")
        peers = {f"a loop with scipy {scipy.__version__} norm.logpdf": norm.logpdf, "a loop without SciPy": plain}
        for peer, logpdf in peers.items():
            theirs = partial(by_loop, logpdf, *given)
            found = row(PATH, peer, size, theirs, ours, close, TARGET, 9, limit=given[1].sum)  # one read of the signals
            print(json.dumps(found))


if __name__ == "__main__":
    main()
