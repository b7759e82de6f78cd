"""The bisection for the largest memorized training set, on shares that are known."""

import pytest

from memlib.errors import Refused
from memlib.metrics import Count, emm


def falling(edge):
    """A share that reaches 90 % up to `edge` images."""
    return lambda n: Count(95, 100) if n <= edge else Count(60, 100)


@pytest.mark.parametrize("edge", [10, 11, 57, 299, 399])
def test_it_brackets_the_edge(edge):
    found = emm(falling(edge), 10, 400, ratio=1.05)
    assert found.size <= edge < found.above
    assert found.above / found.size <= 1.05 or found.above - found.size == 1
    sizes = [n for n, _ in found.trace]
    assert sizes[:2] == [10, 400] and len(set(sizes)) == len(sizes) <= 10
    assert all(isinstance(share, Count) for _, share in found.trace)


def test_open_ends_are_said():
    assert emm(falling(5), 10, 400)[:2] == (0, 10)
    assert emm(falling(900), 10, 400)[:2] == (400, None)
    assert len(emm(falling(5), 10, 400).trace) == 1


def test_numbers_will_do_and_the_level_itself_counts():
    assert emm(lambda n: 0.9 if n < 40 else 0.5, 2, 100, ratio=1.001)[:2] == (39, 40)


@pytest.mark.parametrize("wrong", [(0, 5, 0.9, 1.2), (5, 5, 0.9, 1.2), (1, 5, 0.0, 1.2), (1, 5, 0.9, 1.0)])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(Refused):
        emm(falling(3), *wrong)
