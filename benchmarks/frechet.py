"""The Frechet distance against torchmetrics and SciPy's matrix square root, from the same float32 features.

torchmetrics is its FrechetInceptionDistance with a feature extractor that passes features through; like ours it sums
in float64. The rows "from moments" leave out what both spend on the covariances. `agrees` holds where the distances
differ by less than 1e-5 of themselves. Prints one JSON row a size: `python benchmarks/frechet.py`.
"""

import json
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.linalg
import torch
import torchmetrics
from interleaved import row, seconds
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance, _compute_fid

from memlib.metrics import Moments, frechet_distance

PATH, TARGET, TARGET_FEW = "Frechet distance", 5, 20
PEER = f"torchmetrics {torchmetrics.__version__}"


class Identity(nn.Module):
    """Features for images."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        return x


def by_torchmetrics(a: Tensor, b: Tensor) -> float:
    """Features (N, D) and (M, D) through update and compute."""
    metric = FrechetInceptionDistance(feature=Identity(a.shape[1]), normalize=True, input_img_size=(1, 1, 1))
    metric.update(a, real=True)
    metric.update(b, real=False)
    return float(metric.compute())


def by_scipy(a: Moments, b: Moments) -> float:
    """The formula with sqrtm, as the first implementations have it."""
    root = scipy.linalg.sqrtm((a.covariance @ b.covariance).numpy()).real
    traces = a.covariance.trace() + b.covariance.trace()
    return float((a.mean - b.mean).square().sum() + traces - 2 * root.trace())


def close(theirs: float | Tensor, ours: float) -> bool:
    """Equal, rounding apart."""
    return abs(float(theirs) - ours) < 1e-5 * ours


def share_of_covariances(a: Tensor, b: Tensor, theirs: Callable[[], object]) -> str:
    """How much of our time goes into what the peer does as well, and what the ratio cannot exceed."""
    part = seconds(lambda: [Moments(a.shape[1]).update(rows) for rows in (a, b)], 7)
    whole, bare = seconds(partial(frechet_distance, a, b), 7), seconds(partial(products, a, b), 7)
    return (
        f"the two float64 covariances, which the peer computes as well, take {part / whole:.0%} of our time; their "
        f"halved products, one factor and the eigenvalues alone would be {seconds(theirs) / bare:.1f}x"
    )


def products(a: Tensor, b: Tensor) -> None:
    """The bare arithmetic in float64 of features (N, D): two symmetric products, one Cholesky factor, eigenvalues."""
    from_products([np.matmul(rows.T, rows) for rows in (a.double().numpy(), b.double().numpy())])


def from_products(squares: list) -> None:
    """What is left when both covariances are there."""
    c = torch.from_numpy(squares[0])
    torch.linalg.cholesky_ex(c)
    torch.linalg.eigvalsh(c)


def few_products(a: Tensor, b: Tensor) -> None:
    """The same where there are fewer rows than features: the product of both sets, its square and eigenvalues."""
    cross = (a.double() @ b.double().T).numpy()
    torch.linalg.eigvalsh(torch.from_numpy(np.matmul(cross.T, cross)))


def main() -> None:
    """Print one row a size."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2000, 512, generator=g), 1.2 * torch.randn(2000, 512, generator=g) + 0.1
    m, n = Moments(512).update(a), Moments(512).update(b)
    theirs = partial(_compute_fid, m.mean, m.covariance, n.mean, n.covariance)
    ours = partial(frechet_distance, m, n)
    bare, size = partial(from_products, [m.covariance.numpy()]), "D=512, from moments"
    rows = [
        row(PATH, PEER, size, theirs, ours, close, TARGET, repeats=15, limit=bare),
        row(PATH, "scipy sqrtm", size, partial(by_scipy, m, n), ours, close, TARGET, repeats=3, limit=bare),
    ]
    for count in (600, 2000):
        pair = a[:count], b[:count]
        theirs, ours = partial(by_torchmetrics, *pair), partial(frechet_distance, *pair)
        why, bare = share_of_covariances(*pair, theirs), partial(products, *pair)
        rows.append(row(PATH, PEER, f"N=M={count}, D=512", theirs, ours, close, TARGET, 9, why, bare))
    pair = torch.randn(300, 768, generator=g), 1.2 * torch.randn(300, 768, generator=g) + 0.1
    theirs, ours = partial(by_torchmetrics, *pair), partial(frechet_distance, *pair)
    bare = partial(few_products, *pair)
    rows.append(row(PATH, PEER, "N=M=300, D=768", theirs, ours, close, TARGET_FEW, repeats=9, limit=bare))
    for found in rows:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
