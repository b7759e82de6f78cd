"""Randomness as an argument: generators keyed by (seed, step), and noise whose seed is the name of a sample.

Both use one hash, the finaliser of SplitMix64 (Steele et al. 2014), so the streams of neighbouring seeds and steps are
unrelated.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.shapes import Float, Shaped
from memlib.stored import Rows

Noise = Callable[[Tensor], Tensor]
"""A function that returns standard normal noise of the shape (B, *S), dtype and device of its argument.

`torch.randn_like` is one.
"""

_GOLDEN = -7046029254386353131  # 2^64 / golden ratio as int64: the increment of SplitMix64
_FIRST, _SECOND = -4658895280553007687, -7723592293110705685  # its factors, as int64
_BITS = (1 << 64) - 1


_COUNTED = 1 << 22  # steps of a seed that are kept apart


def keyed(seed: int, step: int) -> torch.Generator:
    """A fresh CPU generator for this pair of scalars (seed, step).

    A generator seeded with seed + step would give step 1 of seed 0 the numbers of step 0 of seed 1; this one does not.

    torch's CPU generator reads 32 bits of its seed. Where two of the first 4,194,304 steps of a seed would agree in
    these bits, the later one gets another key: none of 390,000 steps draws the numbers of another, and of all of them
    about two pairs do. Beyond, and between two seeds, one pair in 4 billion agrees.

    Raises:
        Refused: for a seed or step that is not a whole number of 64 bits, -2^63 to 2^63 - 1.
    """
    return torch.Generator().manual_seed(key(seed, step))


def key(seed: int, step: int) -> int:
    """A 64-bit integer for this pair of scalars (seed, step), for `torch.manual_seed`. See `keyed`."""
    seed, step = whole(seed, "a seed"), whole(step, "a step")
    hashed = _hashed(_hashed(seed) + step)
    repeated = 0 <= step < _COUNTED and step in _repeats(seed, 1 << max(10, step.bit_length()))
    return _hashed(hashed) if repeated else hashed


def whole(number: Any, name: str) -> int:
    """The number, a scalar, as an int of 64 bits. Raises Refused for a fraction, a text or a larger one."""
    try:
        found = operator.index(number)
    except TypeError:
        raise Refused(f"{name} is {number!r}: give a whole number") from None
    if not -(1 << 63) <= found < 1 << 63:
        raise Refused(f"{name} is {found}, beyond 64 bits: give a number from -2^63 to 2^63 - 1")
    return found


@functools.lru_cache(256)
def _repeats(seed: int, count: int) -> frozenset[int]:
    """Those of the first `count` steps whose key has the lower 32 bits of an earlier step's."""
    low = _mix(torch.arange(count) + _signed(_hashed(seed) + _GOLDEN)) & 0xFFFFFFFF
    ordered, step = low.sort(stable=True)  # stable: of equal ones, the earliest step comes first
    return frozenset(step[1:][ordered[1:] == ordered[:-1]].tolist())


def noise_from(generator: torch.Generator) -> Noise:
    """Noise of any shape from `generator`, so that a training step is a function of its seed."""

    def noise(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device)
        return to_device(drawn, x.device)

    return noise


def choose(rows: Shaped[Rows, " m *s"], n: int, generator: torch.Generator | None) -> Shaped[Tensor, " {n} *s"]:
    """n of the `rows` (M, *S), in memory or on disk, drawn with replacement, (n, *S), on the device of the rows.

    The generator is one of the CPU; None is torch's own. Rows of two tensors that belong together are chosen by
    their indices, `choose(torch.arange(M), n, generator)`.
    """
    return rows[to_device(torch.randint(len(rows), (n,), generator=generator), rows.device)]


def to_device(
    values: Shaped[Tensor, "*s"], device: torch.device | str, dtype: torch.dtype | None = None
) -> Shaped[Tensor, "*s"]:
    """`values` of any shape on `device`, and in `dtype` if one is given, without waiting for a GPU.

    Inside a loop the processor can then prepare the next steps while the GPU works. CUDA takes a copy of what lies on
    the CPU before it returns, so the values may be changed at once; no other device promises that.
    """
    waits = values.device.type != "cpu" or torch.device(device).type != "cuda"
    return values.to(device, values.dtype if dtype is None else dtype, non_blocking=not waits)


def seeded(seeds: Sequence[int] | np.ndarray | Shaped[Tensor, "..."]) -> Noise:
    """Noise whose row i at the k-th call depends on (seeds[i], k) alone: the seed is the name of the sample.

    The other samples in the batch and the place of a sample among them change no bit of its noise.

    Arguments:
        seeds: one integer for each of B samples.

    Returns:
        A function from x (B, *S) to noise (B, *S). Its calls are counted from k = 0. It raises Refused for a batch
        whose length is not B.

    Raises:
        Refused: for seeds that are not whole numbers of 64 bits, -2^63 to 2^63 - 1.
    """
    if not isinstance(seeds, Tensor | np.ndarray):
        seeds = [whole(seed, "a seed") for seed in seeds]
    given = torch.as_tensor(seeds)
    if given.numel() and (given.is_floating_point() or given.is_complex()):
        raise Refused(f"seeds are {given.dtype}: give whole numbers, one for each sample")
    return _Seeded(given.to(torch.int64).reshape(-1))


class _Seeded:
    """Counter-based: a 64-bit hash of (seed, step, position), then Box-Muller.

    One vectorised pass serves all samples. A torch generator per sample and step would cost more than a small network.
    """

    def __init__(self, seeds: Tensor) -> None:
        self.keys, self.step = _mix(seeds + _GOLDEN), 0

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) != len(self.keys):
            raise Refused(
                f"noise was seeded for {len(self.keys)} samples and asked for {len(x)}: give one seed for each sample"
            )
        self.keys = to_device(self.keys, x.device)  # once: the next call finds them there
        self.step += 1
        rows = _mix(self.keys ^ int(_mix(torch.tensor(self.step) * _GOLDEN)))  # (B,)
        size = x[0].numel()
        places = torch.arange(2 * ((size + 1) // 2), device=x.device)
        bits = _mix(rows[:, None] + (places + 1) * _GOLDEN)  # (B, 2 ceil(size / 2))
        uniform = (_shift(bits, 11).double() + 1) * 2.0**-53  # (0, 1]
        radius, angle = (-2 * uniform[:, ::2].log()).sqrt(), 2 * math.pi * uniform[:, 1::2]
        normal = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :size]
        return normal.reshape(x.shape).to(x.dtype)


def _hashed(z: int) -> int:
    """The SplitMix64 hash of an integer of any size and sign, as an unsigned 64-bit integer: `_mix` of one number."""
    z = (z + _GOLDEN) & _BITS
    z = ((z ^ z >> 30) * _FIRST) & _BITS
    z = ((z ^ z >> 27) * _SECOND) & _BITS
    return z ^ z >> 31


def _signed(z: int) -> int:
    """The int64 of the same 64 bits."""
    return ((z + (1 << 63)) & _BITS) - (1 << 63)


def _mix(z: Tensor) -> Tensor:
    """The finaliser of SplitMix64: a bijection of int64 that turns counters into random bits (products wrap)."""
    z = (z ^ _shift(z, 30)) * _FIRST
    z = (z ^ _shift(z, 27)) * _SECOND
    return z ^ _shift(z, 31)


def _shift(z: Tensor, by: int) -> Tensor:
    """Logical right shift of int64; torch's own keeps the sign."""
    return (z >> by) & ((1 << (64 - by)) - 1)
