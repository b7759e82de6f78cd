"""MMD with a sum of Gaussian kernels against broadcasting, and against scikit-learn's rbf_kernel.

Broadcasting holds all (N, M, D) differences, as one writes it first, or those of one row at a time, which the caches
like best; scikit-learn multiplies matrices and holds whole kernels. All three take one exponential a bandwidth. All
compute the unbiased estimate of the same float64 features; `agrees` holds where two differ by less than 1e-9 of the
kernel. Prints one JSON row a peer: `python benchmarks/mmd.py`.
"""

import json
from functools import partial

import sklearn
import torch
from interleaved import row
from sklearn.metrics.pairwise import rbf_kernel
from torch import Tensor

from memlib.metrics import mmd2

PATH, TARGET, ROWS, WIDTH = "MMD", 100, 600, 512


def estimate(aa: float, bb: float, ab: float, n: int, m: int, kernels: int) -> float:
    """Unbiased MMD^2 from whole sums of a kernel whose diagonal is `kernels`."""
    return (aa - n * kernels) / (n * (n - 1)) + (bb - m * kernels) / (m * (m - 1)) - 2 * ab / (n * m)


def by_broadcasting(rows: int, a: Tensor, b: Tensor, bandwidths: list[float]) -> float:
    """Features (N, D) and (M, D), `rows` of the left side at a time."""

    def total(x: Tensor, y: Tensor) -> float:
        value = 0.0
        for part in x.split(rows):
            squares = (part[:, None] - y[None]).square().sum(2)
            value += sum(float(torch.exp(-squares / (2 * s**2)).sum()) for s in bandwidths)
        return value

    return estimate(total(a, a), total(b, b), total(a, b), len(a), len(b), len(bandwidths))


def by_scikit_learn(a: Tensor, b: Tensor, bandwidths: list[float]) -> float:
    """Features (N, D) and (M, D)."""

    def total(x: Tensor, y: Tensor) -> float:
        return float(sum(rbf_kernel(x.numpy(), y.numpy(), 1 / (2 * s**2)).sum() for s in bandwidths))

    return estimate(total(a, a), total(b, b), total(a, b), len(a), len(b), len(bandwidths))


def products(a: Tensor, b: Tensor) -> None:
    """The bare arithmetic: half the product of either set with itself, and that of both."""
    for x, y in ((a, a[: len(a) // 2]), (b, b[: len(b) // 2]), (a, b)):
        x @ y.T


def close(theirs: float, ours: float) -> bool:
    """Equal, rounding apart; a kernel value is about 1."""
    return abs(theirs - ours) < 1e-9


def main() -> None:
    """Print one row a size."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, ROWS, WIDTH, generator=g).double()
    widths = [WIDTH**0.5 * factor for factor in (0.25, 0.5, 1.0, 2.0, 4.0)]
    size, ours = f"N=M={ROWS}, D={WIDTH}, 5 dyadic bandwidths", partial(mmd2, a, b, widths)
    few = "no target of its own"
    peers = [
        ("broadcasting", partial(by_broadcasting, ROWS), TARGET, 3, ""),
        ("broadcasting, a row at a time", partial(by_broadcasting, 1), 1, 5, few),
        (f"scikit-learn {sklearn.__version__} rbf_kernel", by_scikit_learn, 1, 9, few),
    ]
    for peer, run, target, repeats, why in peers:
        theirs = partial(run, a, b, widths)
        print(json.dumps(row(PATH, peer, size, theirs, ours, close, target, repeats, why, partial(products, a, b))))


if __name__ == "__main__":
    main()
