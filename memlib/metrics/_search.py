"""The k nearest rows by cosine, exactly: products propose pairs, and one fixed sum decides.

The fastest matrix product available only proposes. The rounding error of its entries is bounded, and every pair that
could still be among the best is computed again as one fixed sum over the features, in float64. The answer therefore
does not depend on the product that proposed it. On a CPU its bits depend neither on the tiling nor on the number of
threads, and equal training images tie exactly.

With the mean c of the training rows, q x = (q - c)(x - c) + c (x - c) + q c. The last term is common to all
similarities of a query and left out of the search; the second is one number for each training row. So rows that are
nearly equal, as those of a collapsed model are, are told apart by products as well. Equal rows are searched once.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from memlib.stored import Rows, filled, mean_row

_FIRST = 64  # queries of the first tile, which finds out how fine a product these rows need
_BLOCK = 8  # adjacent training rows that are proposed together: one eighth of the entries to search
_FEW = 64  # proposed blocks per query up to which exact cosines cost less than a finer product


class _Sizes(NamedTuple):
    """How much is held at once: queries, training rows, numbers while pairs are computed exactly, proposed blocks."""

    rows: int
    columns: int
    cells: int
    pairs: int


_CPU = _Sizes(1024, 2048, 1 << 19, 1 << 16)  # these numbers fit into a cache
_ACCELERATOR = _Sizes(8192, 1 << 16, 1 << 26, 1 << 20)  # or starting the kernels would take the time


def _sizes(device: torch.device) -> _Sizes:
    return _CPU if device.type == "cpu" else _ACCELERATOR


def search(queries: Tensor, train: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest cosines of each query (N, D) with training rows (M, D), all of length 1: float64 (N, k), largest
    first and of equal ones the lowest index first, and their indices (N, k)."""
    centre = centre_of(train)
    value, index, crowded = _stream(queries, train, centre, k)
    if len(crowded):  # too many rows are equally near: copies of one image, as a rule
        rows, owner = _distinct(train)
        best, at, _ = _stream(queries[crowded], rows, centre, min(k, len(rows)), whatever_it_costs=True)
        step = max(1, _sizes(train.device).cells // (k * best.shape[1]))
        parts = zip(crowded.split(step), best.split(step), at.split(step), strict=True)
        for some, values, places in parts:
            value[some], index[some] = _with_copies(values, places, owner, k)
    return value, index


def centre_of(train: Rows) -> Tensor:
    """The mean of the rows (M, D), (D,), as a float64 vector that the dtype of the rows holds exactly."""
    return mean_row(train, torch.float64).to(train.dtype).double()


def cosines(tile: Tensor, train: Tensor, centre: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Cosines of the pairs (i, j) of rows of `tile` (n, D) and `train` (M, D), (P,), in float64 within [-1, 1]."""
    return (_sums(tile, train[:, None], centre, i, j)[:, 0] + (_along(tile, centre) + centre @ centre)[i]).clamp(-1, 1)


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


def _stream(
    queries: Tensor, train: Tensor, centre: Tensor, k: int, whatever_it_costs: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """`search`, tile by tile; and the queries (n,) that were left out because too many rows are equally near."""
    (count, width), sizes = train.shape, _sizes(train.device)
    train = torch.cat((train, train[-1:].expand(-count % _BLOCK, -1)))  # repeats change no maximum over a block
    lift = _along(train, centre)  # (M,)
    lift, level_of_all = lift - lift.mean(), lift.mean()
    particular = train - centre.to(train.dtype)
    reach = particular.norm(dim=1).max().double()
    copies = [particular.to(dtype) for dtype in _products(train)]  # from the fastest product to the finest
    lost = [(particular - copy).norm(dim=1).max().double() for copy in copies]
    value = torch.empty(len(queries), k, dtype=torch.float64, device=queries.device)
    index = torch.empty(len(queries), k, dtype=torch.long, device=queries.device)
    everyone, crowded, level = torch.arange(len(queries), device=queries.device), [], 0
    for whole in filter(len, (everyone[:_FIRST], *everyone[_FIRST:].split(sizes.rows))):
        left = whole
        for step in range(level, len(copies) + 1):
            tile = queries[left].double() - centre
            if step < len(copies):
                parts = copies[step].split(sizes.columns)
                rows, lifts = tile.to(copies[step].dtype), lift.to(copies[step].dtype)
                length = tile.norm(dim=1)
                spoilt = lost[step] * length + reach * (tile - rows).norm(dim=1) + (lift - lifts).abs().max()
            else:  # the last: float64, of the rows themselves
                parts = (part.double() - centre for part in train.split(sizes.columns))
                rows, lifts, length, spoilt = tile, lift, tile.norm(dim=1), torch.zeros_like(tile[:, 0])
            # The last term: of `lift` and of the sums that decide.
            spoilt = spoilt + 2 * width * torch.finfo(torch.float64).eps * reach
            proposed, floor = _propose(rows, parts, lifts, k, spoilt, reach * length)
            few = proposed.sum(0) <= max(_FEW, 2 * k)
            if step < len(copies) and 2 * few.sum() < len(few):
                level = step + 1  # the rows are too similar for this product: the next tiles skip it
            if step == len(copies) and whatever_it_costs:
                few = torch.ones_like(few)
            done, left = left[few], left[~few]
            least = floor[few] + level_of_all
            value[done], index[done] = _settle(queries[done], train, centre, count, proposed[:, few], least, k)
            if not len(left):
                break
        crowded.append(left)
        if 2 * len(left) > len(whole):  # and so are the next tiles
            crowded.append(everyone[everyone > whole[-1]])
            break
    return value, index, torch.cat(crowded)


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


def _propose(
    rows: Tensor, parts: Iterable[Tensor], lift: Tensor, k: int, lost: Tensor, reach: Tensor
) -> tuple[Tensor, Tensor]:
    """The blocks that may hold one of the k best, (M / block, n) bool, and the product that those must reach, (n,)."""
    pairs = zip(parts, lift[:, None].split(_sizes(rows.device).columns), strict=True)
    with _whole_sums(rows):
        tops = torch.cat([torch.addmm(up, part, rows.T).view(-1, _BLOCK, len(rows)).amax(1) for part, up in pairs])
    # k blocks reach the k-th best of these, so k rows do; with fewer blocks than k nothing can be left out.
    if k <= len(tops):
        best = (tops.amax(0) if k == 1 else tops.topk(k, dim=0).values[-1]).double()
    else:
        best = torch.full((rows.shape[0],), -8.0, dtype=torch.float64, device=rows.device)  # no product is so low
    error = bound(rows.dtype, rows.shape[1], lost, best.abs(), reach)
    return tops >= best - 2 * error, best - error


def _settle(
    tile: Tensor, train: Tensor, centre: Tensor, count: int, proposed: Tensor, floor: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """The k nearest of the first `count` training rows among the proposed blocks: cosines (n, k) and indices (n, k)."""
    if len(tile) > 1 and proposed.sum() > _sizes(tile.device).pairs:
        halves = zip(tile.chunk(2), proposed.chunk(2, dim=1), floor.chunk(2), strict=True)
        found = [_settle(rows, train, centre, count, blocks, least, k) for rows, blocks, least in halves]
        return torch.cat([value for value, _ in found]), torch.cat([j for _, j in found])
    block, i = proposed.nonzero(as_tuple=True)
    value = _sums(tile, train.view(-1, _BLOCK, train.shape[1]), centre, i, block)  # (P, block)
    pair, place = (value >= floor[i, None]).nonzero(as_tuple=True)
    value, i, j = value[pair, place], i[pair], block[pair] * _BLOCK + place
    real = j < count
    value, i, j = value[real], i[real], j[real]
    order = value.argsort(descending=True, stable=True)  # pairs are sorted by j: of equal values the lowest comes first
    order = order[i[order].argsort(stable=True)]
    first = i.bincount(minlength=len(tile)).cumsum(0) - i.bincount(minlength=len(tile))
    chosen = order[first[:, None] + torch.arange(k, device=tile.device)]
    return (value[chosen] + (_along(tile, centre) + centre @ centre)[:, None]).clamp(-1, 1), j[chosen]


def _sums(tile: Tensor, train: Tensor, centre: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Products of the rows i of `tile` (n, D) with the blocks j of `train` (., block, D) about the centre, (P, block).

    Each is one sum over the features in float64, whose order depends only on D.
    """
    step = max(1, _sizes(tile.device).cells // train[0].numel())
    pairs = zip(*(index.split(step) for index in (i, j)), strict=True)
    return filled(len(i), (((train[b].double() - centre) * tile[a, None].double()).sum(2) for a, b in pairs))


def _along(rows: Tensor, centre: Tensor) -> Tensor:
    """The product of the centre with each row of (n, D) less the centre, (n,): one sum over features, in float64."""
    step = max(1, _sizes(rows.device).cells // len(centre))
    return filled(len(rows), (((part.double() - centre) * centre).sum(1) for part in rows.split(step)))


def _distinct(train: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows of (M, D), in the order in which they come first, and which of them each row is, (M,)."""
    _, owner = train.unique(dim=0, return_inverse=True)
    places = torch.arange(len(train), device=train.device)
    first = places.new_full((int(owner.max()) + 1,), len(train)).scatter_reduce(0, owner, places, "amin")
    order = first.argsort()
    return train[first[order]], order.argsort()[owner]


def _with_copies(value: Tensor, place: Tensor, owner: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest rows, from the nearest distinct ones: cosines (n, f) and places (n, f), and owners (M,)."""
    by_owner, counts = owner.argsort(stable=True), owner.bincount()
    nth = torch.arange(k, device=place.device)
    slots = (counts.cumsum(0) - counts)[place][..., None] + nth  # (n, f, k): the first k copies of each
    there = nth < counts[place][..., None]
    index = by_owner[slots.clamp(max=len(owner) - 1)].masked_fill(~there, len(owner)).flatten(1)
    values = value[..., None].expand_as(there).masked_fill(~there, -math.inf).flatten(1)
    index, order = index.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values[:, :k], index.gather(1, order)[:, :k]
