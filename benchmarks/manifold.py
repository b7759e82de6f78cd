"""Precision, recall, density and coverage against calls of torch.cdist, which is what one writes without a library.

The peer holds the matrices of distances whole, float32; ours streams. `agrees` holds where all counts are equal. The
reason names the limit: float32 products of the two sets, and half of one where a set meets itself. Prints two JSON rows
a size: `python benchmarks/manifold.py`.
"""

import json
from functools import partial

import torch
from interleaved import row
from torch import Tensor

from memlib.metrics import density_coverage, precision_recall

K = 3


def manifold_by_cdist(real: Tensor, fake: Tensor) -> tuple:
    """Precision and recall as counts, from three whole matrices of distances."""
    radius_real, radius_fake = (torch.cdist(rows, rows).kthvalue(K + 1, dim=1).values for rows in (real, fake))
    apart = torch.cdist(fake, real)  # (M, N)
    return int((apart <= radius_real).any(1).sum()), int((apart <= radius_fake[:, None]).any(0).sum())


def balls_by_cdist(real: Tensor, fake: Tensor) -> tuple:
    """Density, and coverage as a count, from two."""
    inside = torch.cdist(fake, real) <= torch.cdist(real, real).kthvalue(K + 1, dim=1).values
    return float(inside.sum(1).double().mean()) / K, int(inside.any(0).sum())


def manifold(real: Tensor, fake: Tensor) -> tuple:
    """Ours."""
    found = precision_recall(real, fake, K)
    return found.precision.k, found.recall.k


def balls(real: Tensor, fake: Tensor) -> tuple:
    """Ours."""
    found = density_coverage(real, fake, K)
    return found.density, found.coverage.k


def agree(theirs: tuple, ours: tuple) -> bool:
    """Equal counts; a density may differ by the float32 rounding of the peer, which moves pairs across a surface."""
    return all(a == b if isinstance(b, int) else abs(a / b - 1) < 1e-4 for a, b in zip(theirs, ours, strict=True))


def products(*sets: tuple[Tensor, ...]) -> None:
    """The bare arithmetic: the product of two sets, or half the product of one with itself."""
    for pair in sets:
        other = pair[1] if len(pair) == 2 else pair[0][: len(pair[0]) // 2]
        for tile in pair[0].split(1024):
            tile @ other.T


def main() -> None:
    """Print two rows a size."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    for count, width, target in ((8000, 256, 2), (8000, 768, 1.5)):
        real, fake = torch.randn(count, width, generator=g), 0.9 * torch.randn(count, width, generator=g) + 0.02
        for path, calls, theirs, ours in (
            ("precision and recall", "three", manifold_by_cdist, manifold),
            ("density and coverage", "two", balls_by_cdist, balls),
        ):
            bare = partial(products, (fake, real), (real,), *([(fake,)] if ours is manifold else []))
            why = "products, then the smallest of each row, then what lies near a surface"
            peer, size = f"{calls} torch.cdist calls", f"N=M={count}, D={width}, k={K}"
            pair = partial(theirs, real, fake), partial(ours, real, fake)
            print(json.dumps(row(path, peer, size, *pair, agree, target, 3, why, bare)), flush=True)


if __name__ == "__main__":
    main()
