"""The closed-form denoiser of 50,000 points against broadcasting and torch.cdist, and against the product alone.

`Empirical` is built once, outside the timing, and so is what the product alone may precompute. Broadcasting takes
the differences of a row with 256 points at a time, which suited it best of 64 to 50,000; cdist then softmax then a
product is what one writes today; the product alone expands |x - x_i|^2 and never re-ranks. All work in float32 on the
same points, as bright and as wide as CIFAR-10. `agrees` holds where no coordinate of D differs by more than 1e-3.
Prints one JSON row a peer and noise level: `python benchmarks/closed_form_score.py`.
"""

import json
from functools import partial

import torch
from interleaved import row
from torch import Tensor

from memlib.analytic import Empirical

PATH = "closed-form score"
TARGETS = {"broadcasting": 90, "torch.cdist": 2.7, "expanded product, no re-rank": 1.8}


def by_broadcasting(x: Tensor, points: Tensor, sigma: float) -> Tensor:
    """D(x, sigma), (B, d), of points (n, d)."""
    squares = [torch.cat([(part - one).square().sum(1) for part in points.split(256)]) for one in x]
    return (-torch.stack(squares) / (2 * sigma**2)).softmax(1) @ points


def by_cdist(x: Tensor, points: Tensor, sigma: float) -> Tensor:
    """D(x, sigma), (B, d), of points (n, d)."""
    return (-torch.cdist(x, points).square() / (2 * sigma**2)).softmax(1) @ points


def by_product(x: Tensor, points: Tensor, half_squares: Tensor, sigma: float) -> Tensor:
    """D(x, sigma), (B, d), of points (n, d) with |x_i|^2 / 2, (n,)."""
    return (torch.addmm(-half_squares, x, points.T) / sigma**2).softmax(1) @ points


def close(theirs: Tensor, ours: Tensor) -> bool:
    """Equal, rounding apart; a coordinate is about 0.5."""
    return bool((theirs - ours).abs().max() < 1e-3)


def main() -> None:
    """Print one row a peer and noise level."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    points = 0.5 * torch.randn(50_000, 3072, generator=g)
    denoiser, half_squares = Empirical(points), 0.5 * points.square().sum(1)
    for sigma, share in ((20.0, "many points matter"), (5.0, "about two matter"), (0.5, "one matters")):
        x = points[:64] + sigma * torch.randn(64, 3072, generator=g)
        ours, size = partial(denoiser, x, sigma), f"n=50k, d=3072, B=64, sigma={sigma:g}: {share}"
        peers = {
            "broadcasting": (partial(by_broadcasting, x, points, sigma), 1),
            "torch.cdist": (partial(by_cdist, x, points, sigma), 3),
            "expanded product, no re-rank": (partial(by_product, x, points, half_squares, sigma), 3),
        }
        for peer, (theirs, repeats) in peers.items():
            if (peer == "broadcasting") == (sigma == 20) or peer == "torch.cdist":
                print(json.dumps(row(PATH, peer, size, theirs, ours, close, TARGETS[peer], repeats)), flush=True)


if __name__ == "__main__":
    main()
