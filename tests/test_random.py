"""Keys and seeds: all bits of them count, and what is no seed is refused."""

import inspect
import re

import numpy as np
import pytest
import torch

from memlib import noise, sample, train
from memlib.errors import Refused
from memlib.random import _repeats, key, keyed, seeded


def splitmix(z):
    """Steele et al. 2014, fig. 14, with Python's integers: the oracle of `key`."""
    z = (z + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_390_000_steps_have_no_two_generators_alike():
    """torch's CPU generator reads 32 bits: as hashes alone, 21 pairs of these would draw the same numbers."""
    hashes = [splitmix(splitmix(0) + step) for step in range(390_000)]
    plain = inspect.unwrap(key)  # without the checks of the tests, which take a minute
    keys = [plain(0, step) for step in range(390_000)]
    assert len(hashes) - len({one % 2**32 for one in hashes}) == 21
    assert len({one % 2**32 for one in keys}) == 390_000
    changed = [step for step in range(390_000) if keys[step] != hashes[step]]
    assert len(changed) == 21 and changed[0] > 180_000  # and every other step draws what its hash says
    for step in (*changed, 0, 1, 1000):
        earlier = [k for k in range(step) if hashes[k] % 2**32 == hashes[step] % 2**32]
        assert bool(earlier) == (step in changed)
        for other in earlier:
            assert not torch.equal(*(torch.rand(4, generator=keyed(0, k)) for k in (step, other)))


@pytest.mark.parametrize("seed", [0, 1, -5, 2**63 - 1, -(2**63), 987654321])
def test_keys_are_the_hash_wherever_no_step_is_repeated(seed):
    for step in (0, 1, 2, 999, -1, -7, 2**40):
        assert key(seed, step) == splitmix((splitmix(seed % 2**64) + step) % 2**64)


@pytest.mark.parametrize("seed", range(3))
def test_whether_a_step_is_a_repetition_depends_on_earlier_steps_alone(seed):
    small, large = (_repeats(seed, 1 << bits) for bits in (18, 20))
    assert small == {step for step in large if step < 1 << 18} and large - small


def test_seeds_that_agree_in_32_bits_draw_apart():
    draws = [torch.rand(3, generator=keyed(seed, 0)) for seed in (0, 2**32, 2**33, -(2**32))]
    assert len({tuple(draw.tolist()) for draw in draws}) == 4
    both = seeded([0, 2**32, -(2**63), 2**63 - 1])(torch.empty(4, 3))
    assert len({tuple(row.tolist()) for row in both}) == 4


@pytest.mark.parametrize("seed", [2**64, 2**63, -(2**63) - 1])
def test_a_seed_beyond_64_bits_is_refused(seed):
    """It would be cut to another seed, in silence."""
    sentence = f"a seed is {seed}, beyond 64 bits: give a number from -2"
    for draw in (
        lambda: keyed(seed, 0),
        lambda: seeded([3, seed]),
        lambda: sample.start(noise.karras(3), [seed], (2,)),
    ):
        with pytest.raises(Refused, match=sentence):
            draw()
    with pytest.raises(Refused, match="a step is 9223372036854775808, beyond 64 bits"):
        keyed(0, 2**63)


@pytest.mark.parametrize("seed", [0.5, "1", None])
def test_what_is_no_whole_number_is_no_seed(seed):
    with pytest.raises(Refused, match=re.escape(f"a seed is {seed!r}: give a whole number")):
        inspect.unwrap(seeded)([3, seed])
    with pytest.raises(Refused, match=re.escape(f"seed is {seed!r}: give a whole number")):
        train.fit(torch.nn.Linear(1, 1), lambda net, generator: net.weight.sum(), 2, seed=seed)


def test_seeds_as_tensors_arrays_and_ranges():
    x = torch.empty(3, 4)
    for given in (torch.arange(3), np.arange(3), np.arange(3, dtype=np.uint8), range(3), [np.int64(0), 1, 2]):
        assert torch.equal(inspect.unwrap(seeded)(given)(x), seeded([0, 1, 2])(x))
    for given in (torch.tensor([0.2, 0.7, 1.0]), np.array([0.2, 0.7, 1.0])):
        with pytest.raises(Refused, match="give whole numbers, one for each sample"):
            seeded(given)
    with pytest.raises(Refused, match="seeded for 2 samples and asked for 3: give one seed for each"):
        seeded([1, 2])(x)
