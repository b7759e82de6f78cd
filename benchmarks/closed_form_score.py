"""The closed-form denoiser of 50,000 points against broadcasting and torch.cdist, and against the product alone.

`Empirical` is built once, outside the timing, and so is what the product alone may precompute. Broadcasting takes the
(n, d) differences of a row at a time; cdist, softmax and a product are what one writes today; the product alone expands
|x - x_i|^2 and never re-ranks. All work in float32 on the same points, as bright and as wide as CIFAR-10. `agrees`
holds where no coordinate of D, about 0.5, differs by more than 1e-3.
Prints one JSON row a peer and noise level: `python benchmarks/closed_form_score.py`.
"""

import json
from functools import partial

import torch
from interleaved import row, seconds
from torch import Tensor

from memlib.analytic import Empirical

PATH = "closed-form score"


def by_broadcasting(x: Tensor, points: Tensor, sigma: float) -> Tensor:
    """D(x, sigma), (B, d), of points (n, d)."""
    squares = torch.stack([(one - points).square().sum(1) for one in x])
    return (-squares / (2 * sigma**2)).softmax(1) @ points


def by_cdist(x: Tensor, points: Tensor, sigma: float) -> Tensor:
    """D(x, sigma), (B, d), of points (n, d)."""
    return (-torch.cdist(x, points).square() / (2 * sigma**2)).softmax(1) @ points


def by_product(x: Tensor, points: Tensor, half_squares: Tensor, sigma: float) -> Tensor:
    """D(x, sigma), (B, d), of points (n, d) with |x_i|^2 / 2, (n,)."""
    return (torch.addmm(-half_squares, x, points.T) / sigma**2).softmax(1) @ points


def products(x: Tensor, points: Tensor, count: int) -> None:
    """The bare arithmetic: logits, and where many points matter their weighted mean."""
    weights = x @ points.T
    if count == 2:
        weights @ points


def close(theirs: Tensor, ours: Tensor) -> bool:
    """Equal, rounding apart."""
    return bool((theirs - ours).abs().max() < 1e-3)


def main() -> None:
    """Print one row a peer and noise level."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    points = 0.5 * torch.randn(50_000, 3072, generator=g)
    denoiser, half_squares = Empirical(points), 0.5 * points.square().sum(1)
    for sigma, kept in ((20.0, "thousands of points matter"), (5.0, "some matter"), (0.5, "one matters")):
        x = points[:32] + sigma * torch.randn(32, 3072, generator=g)
        ours, size = partial(denoiser, x, sigma), f"n=50k, d=3072, B=32, sigma={sigma:g}: {kept}"
        product = "product without re-rank"
        peers = {"torch.cdist": (by_cdist, 2.7, 4), product: (by_product, 1.8 if sigma < 1 else 0.95, 4)}
        if sigma == 20:
            peers = {"broadcasting": (by_broadcasting, 90, 1)} | peers
        need = 1 if sigma < 1 else 2
        passes = seconds(ours) / seconds(lambda x=x: x @ points.T)
        bare = partial(products, x, points, need)
        why = f"ours takes {passes:.1f} products of x with all points; it needs two, and one where few points matter"
        for peer, (run, target, repeats) in peers.items():
            given = (half_squares, sigma) if peer == product else (sigma,)
            most = (
                f"; {seconds(partial(run, x, points, *given), 1) / seconds(bare):.0f}x is the limit"
                if need == 2
                else ""
            )
            theirs, said = partial(run, x, points, *given), why + (most if peer == "broadcasting" else "")
            found = row(PATH, peer, size, theirs, ours, close, target, repeats, said, bare)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
