"""The fastest products at hand: torch's or, on some processors and for symmetric ones, NumPy's.

torch multiplies with Intel's library, which on other makers' processors may be slower than NumPy's OpenBLAS. A trial
of a few hundredths of a second tells. It may turn out either way where both are equally fast: what proposes with this
product settles the answer otherwise, so that no result depends on the choice.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

Multiply = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(part (m, D), rows (n, D), lift (m,), out (m, n)) -> out, the products of all pairs plus the lift of the part's."""

_TRIAL = (1024, 1024, 512)  # rows, rows and features of the trial: a tile of the search
_WORTH = 50  # trials that a search must be as long as: else the trial is not worth its time
_GAIN = 1.05  # times faster from which NumPy's is taken
_STRIPS = 4  # of a symmetric product by torch: in four strips 3/8 of it need not be computed
_SMALL = 1 << 22  # multiplications up to which a symmetric product is not worth a call of NumPy


def by_torch(part: Tensor, rows: Tensor, lift: Tensor, out: Tensor) -> Tensor:
    """part rows^T + lift, (m, n), by torch."""
    return torch.addmm(lift[:, None], part, rows.T, out=out)


def by_numpy(part: Tensor, rows: Tensor, lift: Tensor, out: Tensor) -> Tensor:
    """part rows^T + lift, (m, n), by NumPy on as many threads as torch has, for float32; other dtypes go to torch."""
    if part.dtype is not torch.float32:
        return by_torch(part, rows, lift, out)
    with _libraries().limit(limits=torch.get_num_threads(), user_api="blas"):
        np.matmul(part.numpy(), rows.numpy().T, out=out.numpy())
    return out.add_(lift[:, None])


def fastest(train: Tensor, count: int) -> Multiply:
    """The product to take for `count` queries of the training rows (M, D)."""
    long = count * train.numel() >= _WORTH * _TRIAL[0] * _TRIAL[1] * _TRIAL[2]
    if train.device.type == "cpu" and long and _numpy_is_faster(torch.get_num_threads()):
        return by_numpy
    return by_torch


def gram(rows: Tensor) -> Tensor:
    """rows^T rows, (D, D) for rows (N, D), of which only one half is computed, and mirrored."""
    if rows.device.type == "cpu" and rows.numel() * rows.shape[1] > _SMALL:
        with _libraries().limit(limits=torch.get_num_threads(), user_api="blas"):
            array = rows.contiguous().numpy()
            return torch.from_numpy(np.matmul(array.T, array))  # NumPy sees that this is symmetric; torch does not
    return _gram_in_strips(rows)


def _gram_in_strips(rows: Tensor) -> Tensor:
    """The same by torch. Outside the diagonal strips, each entry is computed once."""
    found = rows.new_empty(rows.shape[1], rows.shape[1])
    step = max(1, -(-rows.shape[1] // _STRIPS))
    for start in range(0, rows.shape[1], step):
        strip = slice(start, start + step)
        found[strip, start:] = rows[:, strip].T @ rows[:, start:]
        found[start:, strip] = found[strip, start:].T.clone()
    return found


@cache
def _numpy_is_faster(threads: int) -> bool:
    """The outcome of a trial in turns, once a process and number of threads."""
    m, n, width = _TRIAL
    # Numbers of one size: no generator of the user's is touched, and no product is slowed by tiny numbers.
    part, rows = (torch.linspace(-1, 1, count * width).view(count, width) for count in (m, n))
    lift, out, times = torch.zeros(m), torch.empty(m, n), {by_torch: [], by_numpy: []}
    for turn in range(4):
        for product, seconds in times.items():
            start = time.perf_counter()
            product(part, rows, lift, out)
            if turn:  # the first loads the library
                seconds.append(time.perf_counter() - start)
    return min(times[by_torch]) > _GAIN * min(times[by_numpy])


@cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
