"""What multiplies in a search: training rows in the dtypes of fast products, and the rows that these products propose.

The error of each product is bounded, so that no pair is lost; `_search` computes what is proposed exactly.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from memlib.metrics._product import Multiply

BLOCK = 8  # adjacent training rows that are proposed together: one eighth of the entries to search


class _Sizes(NamedTuple):
    """How much is held at once: queries, training rows, numbers while pairs are computed exactly, proposed blocks."""

    rows: int
    columns: int
    cells: int
    pairs: int


_CPU = _Sizes(1024, 1024, 1 << 19, 1 << 16)  # these numbers fit into a cache
_ACCELERATOR = _Sizes(8192, 1 << 16, 1 << 26, 1 << 20)  # or starting the kernels would take the time


def sizes_of(device: torch.device) -> _Sizes:
    """What a device holds at once."""
    return _CPU if device.type == "cpu" else _ACCELERATOR


def bound(
    dtype: torch.dtype, width: int, lost: float | Tensor = 0.0, value: float | Tensor = 1.0, reach: float | Tensor = 1.0
) -> float | Tensor:
    """How far a product of two rows is off, by the cast, the additions and the last rounding: a scalar or (n,).

    `reach` is the product of their lengths, `value` that of the rows, `lost` what the cast took.
    """
    addition = torch.finfo(torch.float64 if dtype is torch.float64 else torch.float32).eps
    if dtype is torch.float32 and torch.get_float32_matmul_precision() != "highest":
        lost = lost + 2**-7 * reach  # the user allows TF32 or bfloat16 inside float32 products
    return 1.01 * (lost + (width + 2) * addition * reach + torch.finfo(dtype).eps / 2 * value)  # 1 % for their products


class Centred(NamedTuple):
    """Training rows less their centre, in the dtype of a product, and the largest that the casts took."""

    rows: Tensor  # (M, D)
    lift: Tensor  # (M,), added to the products of each row
    lost: Tensor  # (), of a row, as a length
    off: Tensor  # (), of a lift

    def meets(self, tile: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (n, D), float64, in the dtype of the product, and how far the casts move their products, (n,)."""
        rows = tile.to(self.rows.dtype)
        return rows, self.lost * tile.norm(dim=1) + reach * (tile - rows).norm(dim=1) + self.off


def casts(train: Tensor, centre: Tensor, lift: Tensor) -> tuple[list[Centred], Tensor]:
    """Training rows (M, D) for each product, from the fastest to the finest, and the length of the longest, ()."""
    step, dtypes = sizes_of(train.device).columns, _products(train)
    reach, lost = [], [[] for _ in dtypes]
    copies = [torch.empty_like(train, dtype=dtype) for dtype in dtypes]
    middle = centre.to(train.dtype)
    for first in range(0, len(train), step):  # a part stays in the cache
        part = train[first : first + step] - middle
        reach.append(part.norm(dim=1).amax().double())
        for copy, off in zip(copies, lost, strict=True):
            copy[first : first + step] = part
            off.append((part - copy[first : first + step]).norm(dim=1).amax().double())
    offs = [(lift - lift.to(dtype)).abs().amax() for dtype in dtypes]
    return [
        Centred(copy, lift.to(copy.dtype), torch.stack(off).amax(), rounded)
        for copy, off, rounded in zip(copies, lost, offs, strict=True)
    ], torch.stack(reach).amax()


def _products(train: Tensor) -> list[torch.dtype]:
    """The dtypes to multiply in before float64. bfloat16 only where the device multiplies in it."""
    if train.device.type == "cpu":
        capable = torch.cpu.get_capabilities()
        able = capable.get("avx512_bf16") or capable.get("amx_bf16")
    else:
        able = train.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return [torch.bfloat16, torch.float32] if able else [torch.float32]


@contextmanager
def _whole_sums(rows: Tensor) -> Iterator[None]:
    """Sums of bfloat16 products in float32 to the end, as `bound` assumes; CUDA may round parts of them otherwise.

    The setting is one of the whole process.
    """
    if rows.device.type != "cuda" or rows.dtype is not torch.bfloat16:
        yield
        return
    settings = torch.backends.cuda.matmul
    before, settings.allow_bf16_reduced_precision_reduction = settings.allow_bf16_reduced_precision_reduction, False
    try:
        yield
    finally:
        settings.allow_bf16_reduced_precision_reduction = before


def propose(
    rows: Tensor, parts: Iterable[Tensor], lift: Tensor, k: int, lost: Tensor, reach: Tensor, multiply: Multiply
) -> tuple[Tensor, Tensor]:
    """The blocks that may hold one of the k best, (M / block, n) bool, and the product that those must reach, (n,)."""
    columns = sizes_of(rows.device).columns
    tops = rows.new_empty(len(lift) // BLOCK, len(rows))
    product = rows.new_empty(min(columns, len(lift)), len(rows))  # one for all parts
    with _whole_sums(rows):
        for part, up, top in zip(parts, lift.split(columns), tops.split(columns // BLOCK), strict=True):
            found = multiply(part, rows, up, product[: len(part)])
            torch.amax(found.view(-1, BLOCK, len(rows)), 1, out=top)
    # k blocks reach the k-th best of these, so k rows do; with fewer blocks than k nothing can be left out. The k-th
    # best of larger groups is hardly lower where they are many, and found sooner.
    group = BLOCK if k > 1 and len(tops) >= 32 * BLOCK * k else 1
    if k <= len(tops):
        groups = tops[: len(tops) // group * group].view(-1, group, len(rows)).amax(1)
        best = (groups.amax(0) if k == 1 else groups.topk(k, dim=0).values[-1]).double()
    else:
        best = torch.full((rows.shape[0],), -8.0, dtype=torch.float64, device=rows.device)  # no product is so low
    error = bound(rows.dtype, rows.shape[1], lost, best.abs(), reach)
    return tops >= below(best - 2 * error, torch.promote_types(rows.dtype, torch.float32)), best - error


def below(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The largest numbers of `dtype` that are not above those of x, (n,): comparing equal dtypes is faster."""
    found = x.to(dtype)
    return torch.where(found > x, found.nextafter(torch.full_like(found, -math.inf)), found)


class Fine(NamedTuple):
    """The finest product before float64, of single pairs: it leaves few of the proposed rows to compute exactly."""

    train: Centred
    rows: Tensor  # (n, D)
    spoilt: Tensor  # (n,), by the casts
    reach: Tensor  # (), the longest training row
    length: Tensor  # (n,), of the queries less the centre

    def of(self, some: Tensor) -> "Fine":
        """Those of some of the queries: a mask (n,) or indices (s,)."""
        return self._replace(rows=self.rows[some], spoilt=self.spoilt[some], length=self.length[some])

    def reaches(self, floor: Tensor, i: Tensor, block: Tensor) -> Tensor:
        """Whether the product of query i with each row of a block, both (P,), may reach its floor (n,): (P, block)."""
        width, reach = self.rows.shape[1], self.reach * self.length
        most = reach + self.train.lift.abs().amax()
        error = bound(self.rows.dtype, width, self.spoilt, most, reach)
        least = below(floor - error, self.rows.dtype)
        blocks, lifts = self.train.rows.view(-1, BLOCK * width), self.train.lift.view(-1, BLOCK)
        step = max(1, sizes_of(i.device).cells // (BLOCK * width))
        pairs = zip(i.split(step), block.split(step), strict=True)
        found = []
        for a, b in pairs:  # `index_select` copies twice as fast as an index does
            rows = blocks.index_select(0, b).view(-1, BLOCK, width)
            products = torch.bmm(self.rows.index_select(0, a)[:, None], rows.mT)[:, 0]
            found.append(products + lifts[b] >= least[a, None])
        return torch.cat(found)
