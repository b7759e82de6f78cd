"""The training images that a sample resembles, by cosine and by L2. All is streamed: no (N, M) matrix is ever held.

Products of matrices only propose pairs. Every pair that could matter is computed again from the rows themselves
(`_search` for cosines), so the answers do not depend on how a product was rounded. All take sets on disk
(`memlib.stored`), which they read part by part.
"""

import math
from typing import overload

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.metrics._arguments import takes_arrays
from memlib.metrics._proposal import bound
from memlib.metrics._search import centre_of, cosines, search
from memlib.metrics._search_stored import search_stored
from memlib.metrics.counts import _in_band
from memlib.shapes import Float, Int, Shaped
from memlib.stored import Rows, Stored, at_once, distinct_rows, each, filled, mapped, mean_row

_ROWS = 1024  # queries held at once
_COLUMNS = 2048  # training rows held at once
_CELLS = 1 << 19  # numbers held at once while distances are computed exactly: they fit into a cache
_KEPT = 8  # nearest rows by L2 that are computed exactly in the first pass


@takes_arrays("queries", "train")
@torch.no_grad()
def nearest(
    queries: Shaped[Rows, "..."], train: Shaped[Rows, "..."], k: int = 1
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k nearest training rows of each query by cosine similarity, largest first.

    Rows are normalised here. Similarities are compared in float64 and returned in the dtype of the rows: float32 and
    float64 are kept, half precision gives float32. Equal similarities are ordered by index, lowest first. Memory:
    copies of the rows, and M/8 numbers for each of 1,024 queries at a time.

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
    if isinstance(queries, Tensor) and isinstance(train, Tensor):
        similarity, index = search(queries, train, k)
    else:
        similarity, index = search_stored(queries, train, k)
    return similarity.to(queries.dtype), index


@takes_arrays("images", "features", "targets", "known")
@torch.no_grad()
def closest(
    images: Shaped[Rows, " n *s"],
    features: Shaped[Rows, "..."],
    targets: Shaped[Rows, " m *s"],
    known: Shaped[Rows, "..."],
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Cosine to the nearest target, (N,), the L2 distance of the images themselves to it, (N,), and its index, (N,).

    Both measures speak of one image, as a `Joint` threshold wants them.

    Arguments:
        images: (N, *S).
        features: (N, D), of the images.
        targets: (M, *S), such as the training images.
        known: (M, D), their features.

    Raises:
        Refused: as `nearest` does.
    """
    similarity, index = (one[:, 0] for one in nearest(features, known))
    return similarity, apart(images, targets, index), index


def apart(
    images: Shaped[Rows, " n *s"], targets: Shaped[Rows, " m *s"], index: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The L2 distance of image i of (N, *S) to target index[i] of (M, *S), (N,)."""
    rows = torch.arange(len(images), device=images.device).split(at_once(len(images) or 1, images, targets))
    return filled(len(images), ((images[some] - targets[index[some]]).flatten(1).norm(dim=1) for some in rows))


@takes_arrays("queries", "train")
@torch.no_grad()
def matches(
    queries: Shaped[Rows, "..."], train: Shaped[Rows, "..."], low: float, high: float = math.inf
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
        Refused: as `nearest` does, and for an empty band.
    """
    queries, train = _directions(queries, train)
    edge, centre = float(bound(train.dtype, train.shape[1])), centre_of(train)
    found, start = [], 0
    for tile in queries.split(at_once(_ROWS, queries, train)):
        pairs, column = [], 0
        for part in train.split(at_once(_COLUMNS, queries, train)):
            i, j = _resembling(tile, part, centre, edge, low, high).nonzero(as_tuple=True)
            pairs.append(torch.stack((i + start, j + column)))
            column += len(part)
        pairs = torch.cat(pairs, 1)
        found.append(pairs[:, pairs[0].argsort(stable=True)])
        start += len(tile)
    first, second = torch.cat(found, 1)
    return first, second


@takes_arrays("queries", "train")
@torch.no_grad()
def l2_ratio(queries: Shaped[Rows, "..."], train: Shaped[Rows, "..."], distinct: float = 0.0) -> Float[Tensor, " n"]:
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
    centre = mean_row(train)  # the product form of a distance cancels less about the centre
    near, far = (mapped(rows, lambda part: part - centre) for rows in (queries, train))
    radius = each(_lengths, far).max()
    reach = each(_lengths, near) + radius  # (N,), no distance is larger
    ratio, left = torch.empty_like(reach), torch.arange(len(queries), device=queries.device)
    kept, step = _KEPT, at_once(_ROWS, queries, train)
    if 2.01 * radius <= distinct:
        raise _one_image(0, distinct)
    while len(left):
        kept = min(kept, len(train))
        again, squared = [], each(_squares, far)
        for rows in left.split(step):
            squares, index = _smallest(near[rows], far, kept, squared)
            # No row that was left out is nearer than this, however the product was rounded.
            slack = bound(far.dtype, far.shape[1], reach=4.0) * reach[rows] ** 2
            outside = (squares[:, -1] - slack).clamp(min=0).sqrt() if kept < len(train) else slack + math.inf
            one, other = _two_distances(queries[rows], train, index, distinct)
            sure = (other <= outside) & other.isfinite()
            ratio[rows] = one / other
            again.append(rows[~sure])
        left = torch.cat(again)
        if kept == len(train) and len(left):
            raise _one_image(int(left[0]), distinct)
        if kept == _KEPT and len(left):  # copies change no answer, and float64 tells nearly equal rows apart
            train, _ = distinct_rows(train)
            near, far = (mapped(rows.double(), lambda part: part - centre) for rows in (queries, train))
        kept *= 8
    return ratio


def _resembling(tile: Tensor, part: Tensor, centre: Tensor, edge: float, low: float, high: float) -> Tensor:
    """Whether the cosines of rows (n, D) and (m, D) lie in the band, (n, m); `edge` bounds a product's rounding."""
    product = tile @ part.T
    inside = _in_band(product, low - edge, high if high == 1 else high + edge)
    near_end = (product < low + edge) if high == 1 else (product < low + edge) | (product >= high - edge)
    i, j = (inside & near_end).nonzero(as_tuple=True)  # these are decided by their own sums
    inside[i, j] = _in_band(cosines(tile, part, centre, i, j).to(tile.dtype), low, high)
    return inside


def _one_image(query: int, distinct: float) -> Refused:
    advice = "lower distinct" if distinct else "they are one image, so give a set of several"
    return Refused(f"query {query}: no training row is farther than {distinct} from its nearest: {advice}")


def _lengths(rows: Tensor) -> Tensor:
    return rows.norm(dim=1)


def _squares(rows: Tensor) -> Tensor:
    return rows.square().sum(1)


def _rows(queries: Rows, train: Rows) -> tuple[Rows, Rows]:
    """Both as (N, D) and (M, D) of one floating dtype, at least float32; or Refused."""
    shapes = tuple(queries.shape), tuple(train.shape)
    if any(len(shape) != 2 or 0 in shape for shape in shapes) or shapes[0][1] != shapes[1][1]:
        given = f"{shapes[0]} and {shapes[1]}"
        raise Refused(f"neighbours need queries (N, D) and training rows (M, D), neither empty, not {given}")
    dtype = torch.promote_types(torch.promote_types(queries.dtype, train.dtype), torch.float32)
    queries, train = queries.to(dtype), train.to(dtype)
    for name, rows in (("query", queries), ("training", train)):
        finite = each(_lengths, rows).isfinite()
        if not finite.all():
            first = int((~finite).nonzero()[0])
            raise Refused(f"{name} row {first} is not finite: look at the image or the features behind it")
    return queries, train


def _directions(queries: Rows, train: Rows) -> list[Rows]:
    """Both with rows of length 1; or Refused."""
    directions = []
    for name, rows in zip(("query", "training"), _rows(queries, train), strict=True):
        length = each(_lengths, rows)
        if (length == 0).any():
            first = int((length == 0).nonzero()[0, 0])
            raise Refused(f"{name} row {first} is zero and has no direction: drop it, or use other features")
        directions.append(rows.map(_direction) if isinstance(rows, Stored) else rows / length[:, None])
    return directions


def _direction(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def _smallest(tile: Tensor, train: Rows, kept: int, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The `kept` smallest squared distances of each row, by the product form, (n, kept), ascending; their indices."""
    lengths = each(_squares, train) if lengths is None else lengths
    values, index = tile.new_empty(len(tile), 0), torch.empty(len(tile), 0, dtype=torch.long, device=tile.device)
    step = at_once(_COLUMNS, train)
    for column in range(0, len(train), step):
        part = slice(column, column + step)
        squares = torch.addmm(lengths[part], tile, train[part].T, alpha=-2)
        value, place = squares.topk(min(kept, squares.shape[1]), largest=False)
        values, index = torch.cat((values, value), 1), torch.cat((index, place + column), 1)
        values, order = values.topk(min(kept, values.shape[1]), largest=False)
        index = index.gather(1, order)
    return values + tile.square().sum(1, keepdim=True), index


def _two_distances(tile: Tensor, train: Rows, index: Tensor, distinct: float) -> tuple[Tensor, Tensor]:
    """The distance to the nearest indexed row, (n,), and to the nearest one that is distinct from it, or inf, (n,)."""
    found, first = tile.new_empty(2, len(tile)), 0
    step = max(1, _CELLS // (index.shape[1] * tile.shape[1]))
    for rows, places in zip(tile.split(step), index.split(step), strict=True):
        candidates = train[places]  # (n, kept, D)
        distance = (candidates - rows[:, None]).norm(dim=2)
        least, place = distance.min(1)
        chosen = candidates[torch.arange(len(rows), device=rows.device), place]
        apart = (candidates - chosen[:, None]).norm(dim=2) > distinct
        found[:, first : first + len(rows)] = torch.stack((least, distance.masked_fill(~apart, math.inf).amin(1)))
        first += len(rows)
    return found[0], found[1]


def _finite(rows: Tensor) -> Tensor:
    return rows.isfinite().all(1)


@overload
def checked(rows: Tensor, name: str, least: int = 2, width: int | None = None) -> Tensor: ...
@overload
def checked(rows: Rows, name: str, least: int = 2, width: int | None = None) -> Rows: ...
def checked(rows: Rows, name: str, least: int = 2, width: int | None = None) -> Rows:
    """The rows (N, D), unchanged, if they are valid; `name` is the word for them in an error message.

    Raises:
        Refused: unless they have two dimensions, D >= 1 (D = `width` if given), N >= `least`, and finite values.
    """
    if rows.dim() != 2 or rows.shape[1] < 1 or (width is not None and rows.shape[1] != width):
        wanted = f"(N, {width})" if width else "(N, D)"
        raise Refused(f"{name} features must have shape {wanted}, not {tuple(rows.shape)}")
    if len(rows) < least:
        raise Refused(f"{name} features have {len(rows)} rows where at least {least} are needed: give more samples")
    if isinstance(rows, Stored) or not rows.sum().isfinite():  # one pass; a sum may be infinite where no value is
        finite = each(_finite, rows)
        if not finite.all():
            first = int((~finite).nonzero()[0])
            raise Refused(f"{name} row {first} is not finite: look at the image or the features behind it")
    return rows
