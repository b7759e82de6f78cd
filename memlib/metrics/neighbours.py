"""The training images that a sample resembles, by cosine and by L2. All is streamed: no (N, M) matrix is ever held.

The fastest matrix product available only proposes pairs. The rounding error of its entries is bounded, and every pair
that could still be among the best is computed again as one fixed sum over the features. The answer therefore does not
depend on the product that proposed it. On a CPU its bits depend neither on the tiling nor on the number of threads, and
equal training images tie exactly.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics.counts import in_band
from memlib.shapes import Float, Int, Shaped

_ROWS = 1024  # queries held at once
_COLUMNS = 2048  # training rows held at once; on an accelerator 32 times as many, or launching takes the time
_BLOCK = 8  # adjacent training rows that are proposed together: one eighth of the entries to search
_FEW = 64  # proposed blocks per query up to which exact cosines cost less than a finer product
_CELLS = 1 << 19  # numbers held at once while pairs are computed exactly: they fit into a cache
_PAIRS = 1 << 22  # proposed pairs held at once
_KEPT = 8  # nearest rows by L2 that are computed exactly in the first pass


@torch.no_grad()
def nearest(
    queries: Shaped[Tensor, "..."], train: Shaped[Tensor, "..."], k: int = 1
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k nearest training rows of each query by cosine similarity, largest first.

    Rows are normalised here. Equal similarities are ordered by index, lowest first. float32 and float64 are kept; half
    precision is computed in float32. Memory: copies of the rows, and M/8 numbers for each of 1,024 queries at a time.

    Arguments:
        queries: (N, D), features of images.
        train: (M, D), features of the training images.
        k: the number of neighbours, 1 to M.

    Returns:
        The cosine similarities (N, k), and the indices of the training rows (N, k).

    Raises:
        Refused: for k outside 1..M, for shapes that do not match, and for rows that are zero or not finite, since those
            have no direction.
    """
    queries, train = _directions(queries, train)
    if not 1 <= k <= len(train):
        raise Refused(
            f"there are no {k} nearest neighbours among {len(train)} training rows: give k from 1 to {len(train)}"
        )
    count = len(train)
    train = torch.cat((train, train[-1:].expand(-count % _BLOCK, -1)))  # repeats change no maximum over a block
    # A part common to all rows adds the same to all similarities of a query. Without it, less is rounded.
    centre = train.mean(0)
    particular = train - centre
    reach = particular.norm(dim=1).max()
    copies = [particular.to(dtype) for dtype in _products(train)]  # from the fastest product to the finest
    lost = [(particular - copy).norm(dim=1).max() for copy in copies]
    similarity = queries.new_empty(len(queries), k)
    index = torch.empty(len(queries), k, dtype=torch.long, device=queries.device)
    level = 0
    for left in torch.arange(len(queries), device=queries.device).split(_ROWS):
        for step in range(level, len(copies)):
            tile = queries[left]
            spoilt = lost[step] + reach * (tile - tile.to(copies[step].dtype)).norm(dim=1)
            proposed, floor = _propose(tile, copies[step], spoilt, k)
            floor = floor + tile @ centre
            few = proposed.sum(0) <= max(_FEW, 2 * k)
            if step == len(copies) - 1 or few.all():
                similarity[left], index[left] = _settle(tile, train, count, proposed, floor, k)
                break
            if 2 * few.sum() < len(few):  # the rows are too similar for this product: the next tiles skip it
                level = step + 1
            done, left = left[few], left[~few]
            similarity[done], index[done] = _settle(tile[few], train, count, proposed[:, few], floor[few], k)
    return similarity, index


@torch.no_grad()
def matches(
    queries: Shaped[Tensor, "..."], train: Shaped[Tensor, "..."], low: float, high: float = math.inf
) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """All pairs (i, j) whose cosine similarity lies in the band, ordered by i, then j.

    The similarities are those of `nearest`. Memory grows only with the number P of pairs.

    Arguments:
        queries: (N, D), features of images.
        train: (M, D), features of the training images.
        low, high: the ends of the band, as in `in_band`.

    Returns:
        The indices i (P,) of queries, and the indices j (P,) of training rows.

    Raises:
        Refused: as `nearest` does.
    """
    queries, train = _directions(queries, train)
    edge = float(_bound(train.dtype, train.shape[1]))
    found = []
    for start in range(0, len(queries), _ROWS):
        tile, pairs = queries[start : start + _ROWS], []
        for column in range(0, len(train), _COLUMNS):
            product = tile @ train[column : column + _COLUMNS].T
            i, j = in_band(product, low - edge, high if high == 1 else high + edge).nonzero(as_tuple=True)
            j = j + column
            inside = in_band(_cosines(tile, train[:, None], i, j)[:, 0], low, high)
            pairs.append(torch.stack((i[inside] + start, j[inside])))
        pairs = torch.cat(pairs, 1)
        found.append(pairs[:, pairs[0].argsort(stable=True)])
    first, second = torch.cat(found, 1)
    return first, second


@torch.no_grad()
def l2_ratio(
    queries: Shaped[Tensor, "..."], train: Shaped[Tensor, "..."], distinct: float = 0.0
) -> Float[Tensor, " n"]:
    """L2 distance to the nearest training row over the distance to the nearest *distinct* one. Below 1/3: memorized.

    The criterion is that of Yoon et al. 2023 and Gu et al. 2023. Their second neighbour may be a duplicate of the
    first, so that a perfect copy scores 1. Here, rows within `distinct` of the nearest row are skipped. Distances are
    computed from differences, so a copy scores exactly 0.

    Arguments:
        queries: (N, D), features or pixels; they are not normalised.
        train: (M, D), the same of the training images.
        distinct: the distance up to which two training rows count as the same image; 0 means exact duplicates only.

    Returns:
        (N,), one ratio for each query.

    Raises:
        Refused: if all training rows are the same up to `distinct`, and for shapes that do not match.
    """
    queries, train = _rows(queries, train)
    if distinct < 0:
        raise Refused(f"the distance from which rows are distinct is 0 or more, not {distinct}")
    centre = train.mean(0)  # the product form of a distance cancels less about the centre
    near, far = queries - centre, train - centre
    reach = near.norm(dim=1) + far.norm(dim=1).max()  # (N,), no distance is larger
    ratio, left, kept = queries.new_empty(len(queries)), torch.arange(len(queries), device=queries.device), _KEPT
    while len(left):
        kept = min(kept, len(train))
        again = []
        for rows in left.split(_ROWS):
            squares, index = _smallest(near[rows], far, kept)
            # No row that was left out is nearer than this, however the product was rounded.
            slack = _bound(train.dtype, train.shape[1]) * reach[rows] ** 2
            outside = (squares[:, -1] - slack).clamp(min=0).sqrt() if kept < len(train) else slack + math.inf
            one, other = _two_distances(queries[rows], train, index, distinct)
            sure = (other <= outside) & other.isfinite()
            ratio[rows] = one / other
            again.append(rows[~sure])
        left = torch.cat(again)
        if kept == len(train) and len(left):
            first = int(left[0])
            raise Refused(f"query {first}: no training row is farther than {distinct} from its nearest: lower distinct")
        kept *= 8
    return ratio


def _rows(queries: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (N, D) and (M, D) of one floating dtype, at least float32; or Refused."""
    shapes = tuple(queries.shape), tuple(train.shape)
    if any(len(shape) != 2 or 0 in shape for shape in shapes) or shapes[0][1] != shapes[1][1]:
        given = f"{shapes[0]} and {shapes[1]}"
        raise Refused(f"neighbours need queries (N, D) and training rows (M, D), neither empty, not {given}")
    dtype = torch.promote_types(torch.promote_types(queries.dtype, train.dtype), torch.float32)
    queries, train = queries.to(dtype), train.to(dtype)
    for name, rows in (("query", queries), ("training", train)):
        finite = rows.norm(dim=1).isfinite()
        if not finite.all():
            first = int((~finite).nonzero()[0])
            raise Refused(f"{name} row {first} is not finite: look at the image or the features behind it")
    return queries, train


def _directions(queries: Tensor, train: Tensor) -> list[Tensor]:
    """Both with rows of length 1; or Refused."""
    directions = []
    for name, rows in zip(("query", "training"), _rows(queries, train), strict=True):
        length = rows.norm(dim=1, keepdim=True)
        if (length == 0).any():
            first = int((length == 0).nonzero()[0, 0])
            raise Refused(f"{name} row {first} is zero and has no direction: drop it, or use other features")
        directions.append(rows / length)
    return directions


def _products(train: Tensor) -> list[torch.dtype]:
    """The dtypes to multiply in, from the fastest to the finest. bfloat16 only where the device multiplies in it."""
    if train.device.type == "cpu":
        capable = torch.cpu.get_capabilities()
        able = capable.get("avx512_bf16") or capable.get("amx_bf16")
    else:
        able = train.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    fast = [torch.bfloat16] if able else []
    return [*fast, torch.float32, train.dtype] if train.dtype is torch.float64 else [*fast, train.dtype]


def _bound(dtype: torch.dtype, width: int, lost: float | Tensor = 0.0, value: float | Tensor = 1.0) -> float | Tensor:
    """How far a product of rows of length <= 1 and <= 2 may be off: by the cast, the additions, the last rounding."""
    addition = torch.finfo(torch.float64 if dtype is torch.float64 else torch.float32).eps
    if dtype is torch.float32 and torch.get_float32_matmul_precision() != "highest":
        lost = lost + 2**-7  # the user allows TF32 or bfloat16 inside float32 products
    return 1.01 * (lost + 4 * width * addition + torch.finfo(dtype).eps / 2 * value)  # 1 % for products of these


def _propose(tile: Tensor, copy: Tensor, lost: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The blocks that may hold one of the k best, (M / block, n) bool, and the product that those must reach, (n,)."""
    rows = tile.to(copy.dtype)
    columns = _COLUMNS if copy.device.type == "cpu" else 32 * _COLUMNS
    with _whole_sums(copy):
        tops = torch.cat([(part @ rows.T).view(-1, _BLOCK, len(rows)).amax(1) for part in copy.split(columns)])
    # k blocks reach the k-th best of these, so k rows do; with fewer blocks than k nothing can be left out.
    if k <= len(tops):
        best = (tops.amax(0) if k == 1 else tops.topk(k, dim=0).values[-1]).to(tile.dtype)
    else:
        best = tile.new_full((len(tile),), -4.0)  # no product is lower than -2
    error = _bound(copy.dtype, tile.shape[1], lost, best.abs())
    return tops >= best - 2 * error, best - error


@contextmanager
def _whole_sums(rows: Tensor) -> Iterator[None]:
    """Sums of bfloat16 products in float32 to the end, as `_bound` assumes; CUDA may round parts of them otherwise."""
    if rows.device.type != "cuda" or rows.dtype is not torch.bfloat16:
        yield
        return
    settings = torch.backends.cuda.matmul
    before, settings.allow_bf16_reduced_precision_reduction = settings.allow_bf16_reduced_precision_reduction, False
    try:
        yield
    finally:
        settings.allow_bf16_reduced_precision_reduction = before


def _settle(tile: Tensor, train: Tensor, count: int, proposed: Tensor, floor: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest of the first `count` training rows among the proposed blocks: cosines (n, k) and indices (n, k)."""
    if len(tile) > 1 and proposed.sum() > _PAIRS:
        halves = zip(tile.chunk(2), proposed.chunk(2, dim=1), floor.chunk(2), strict=True)
        found = [_settle(rows, train, count, blocks, least, k) for rows, blocks, least in halves]
        return torch.cat([value for value, _ in found]), torch.cat([j for _, j in found])
    block, i = proposed.nonzero(as_tuple=True)
    value = _cosines(tile, train.view(-1, _BLOCK, train.shape[1]), i, block)  # (P, block)
    pair, place = (value >= floor[i, None]).nonzero(as_tuple=True)
    value, i, j = value[pair, place], i[pair], block[pair] * _BLOCK + place
    real = j < count
    value, i, j = value[real], i[real], j[real]
    order = value.argsort(descending=True, stable=True)  # pairs are sorted by j: of equal values the lowest comes first
    order = order[i[order].argsort(stable=True)]
    first = i.bincount(minlength=len(tile)).cumsum(0) - i.bincount(minlength=len(tile))
    chosen = order[first[:, None] + torch.arange(k, device=tile.device)]
    return value[chosen], j[chosen]


def _cosines(tile: Tensor, train: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Cosines of the rows i of `tile` (n, D) with the blocks j of `train` (., block, D), (P, block), within [-1, 1].

    Each is one sum over the features, whose order depends only on D.
    """
    pairs = zip(*(index.split(max(1, _CELLS // train[0].numel())) for index in (i, j)), strict=True)
    return torch.cat([(train[b] * tile[a, None]).sum(2) for a, b in pairs]).clamp(-1, 1)


def _smallest(tile: Tensor, train: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """The `kept` smallest squared distances of each row, by the product form, (n, kept), ascending; their indices."""
    lengths = train.square().sum(1)
    values, index = tile.new_empty(len(tile), 0), torch.empty(len(tile), 0, dtype=torch.long, device=tile.device)
    for column in range(0, len(train), _COLUMNS):
        part = slice(column, column + _COLUMNS)
        squares = torch.addmm(lengths[part], tile, train[part].T, alpha=-2)
        value, place = squares.topk(min(kept, squares.shape[1]), largest=False)
        values, index = torch.cat((values, value), 1), torch.cat((index, place + column), 1)
        values, order = values.topk(min(kept, values.shape[1]), largest=False)
        index = index.gather(1, order)
    return values + tile.square().sum(1, keepdim=True), index


def _two_distances(tile: Tensor, train: Tensor, index: Tensor, distinct: float) -> tuple[Tensor, Tensor]:
    """The distance to the nearest indexed row, (n,), and to the nearest one that is distinct from it, or inf, (n,)."""
    one, other = [], []
    step = max(1, _CELLS // (index.shape[1] * tile.shape[1]))
    for rows, places in zip(tile.split(step), index.split(step), strict=True):
        candidates = train[places]  # (n, kept, D)
        distance = (candidates - rows[:, None]).norm(dim=2)
        least, place = distance.min(1)
        chosen = candidates[torch.arange(len(rows), device=rows.device), place]
        apart = (candidates - chosen[:, None]).norm(dim=2) > distinct
        one.append(least)
        other.append(distance.masked_fill(~apart, math.inf).amin(1))
    return torch.cat(one), torch.cat(other)


def checked(rows: Tensor, name: str, least: int = 2, width: int | None = None) -> Tensor:
    """The rows (N, D), unchanged, if they are valid; `name` is the word for them in an error message.

    Raises:
        Refused: unless they have two dimensions, D >= 1 (D = `width` if given), N >= `least`, and finite values.
    """
    if rows.dim() != 2 or rows.shape[1] < 1 or (width is not None and rows.shape[1] != width):
        wanted = f"(N, {width})" if width else "(N, D)"
        raise Refused(f"{name} features must have shape {wanted}, not {tuple(rows.shape)}")
    if len(rows) < least:
        raise Refused(f"{name} features have {len(rows)} rows where at least {least} are needed: give more samples")
    finite = rows.isfinite().all(1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise Refused(f"{name} row {first} is not finite: look at the image or the features behind it")
    return rows
