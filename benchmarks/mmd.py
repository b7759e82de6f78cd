"""MMD with a sum of Gaussian kernels against broadcasting, and against scikit-learn's rbf_kernel.

Broadcasting takes the (1, M, D) differences of a row at a time, which suited it best of 1 to 128; scikit-learn
multiplies matrices and holds whole kernels. Both take one exponential a bandwidth. All compute the unbiased estimate of
the same float64 features; `agrees` holds where two differ by less than 1e-9 of the kernel. Prints one JSON row a peer:
`python benchmarks/mmd.py`.
"""

import json
from functools import partial

import sklearn
import torch
from interleaved import row
from sklearn.metrics.pairwise import rbf_kernel
from torch import Tensor

from memlib.metrics import mmd2

PATH, TARGET = "MMD", 100


def estimate(aa: float, bb: float, ab: float, n: int, m: int, kernels: int) -> float:
    """Unbiased MMD^2 from whole sums of a kernel whose diagonal is `kernels`."""
    return (aa - n * kernels) / (n * (n - 1)) + (bb - m * kernels) / (m * (m - 1)) - 2 * ab / (n * m)


def by_broadcasting(a: Tensor, b: Tensor, bandwidths: list[float]) -> float:
    """Features (N, D) and (M, D)."""

    def total(x: Tensor, y: Tensor) -> float:
        value = 0.0
        for part in x.split(1):
            squares = (part[:, None] - y[None]).square().sum(2)
            value += sum(float(torch.exp(-squares / (2 * s**2)).sum()) for s in bandwidths)
        return value

    return estimate(total(a, a), total(b, b), total(a, b), len(a), len(b), len(bandwidths))


def by_scikit_learn(a: Tensor, b: Tensor, bandwidths: list[float]) -> float:
    """Features (N, D) and (M, D)."""

    def total(x: Tensor, y: Tensor) -> float:
        return float(sum(rbf_kernel(x.numpy(), y.numpy(), 1 / (2 * s**2)).sum() for s in bandwidths))

    return estimate(total(a, a), total(b, b), total(a, b), len(a), len(b), len(bandwidths))


def close(theirs: float, ours: float) -> bool:
    """Equal, rounding apart; a kernel value is about 1."""
    return abs(theirs - ours) < 1e-9


def main() -> None:
    """Print one row a size."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(1000, 512, generator=g).double(), torch.randn(1000, 512, generator=g).double() + 0.05
    widths = [512**0.5 * factor for factor in (0.25, 0.5, 1.0, 2.0, 4.0)]
    size = "N=M=1000, D=512, 5 dyadic bandwidths"
    sets, ours = (a, b, widths), partial(mmd2, a, b, widths)
    print(json.dumps(row(PATH, "broadcasting", size, partial(by_broadcasting, *sets), ours, close, TARGET, 3)))
    peer = f"scikit-learn {sklearn.__version__} rbf_kernel"
    why = "no target: the peer multiplies matrices too, but computes all of the symmetric kernels and five exponentials"
    print(json.dumps(row(PATH, peer, size, partial(by_scikit_learn, *sets), ours, close, 1, 5, why)))


if __name__ == "__main__":
    main()
