"""Words for losses: every branch, on intervals worked out by hand from the table of Student's t."""

import math

import pytest
import torch

from memlib.errors import Refused
from memlib.papers.i2i import evaluation

# Repetitions m - d, m, m + d have standard deviation d, and t(0.95, 2) = 2.919986: the interval is m -+ 1.685855 d.
REACH = 2.919986 / math.sqrt(3)
MARGIN = 0.1


def about(mean, spread):
    return torch.tensor([mean - spread, mean, mean + spread], dtype=torch.float64)


def losses(retain, forget, spread=0.01):
    return torch.stack([about(retain, spread), about(forget, spread)], 1)


class TestInterval:
    def test_by_hand(self):
        assert evaluation.interval(about(1.0, 0.1)) == pytest.approx((1 - 0.1 * REACH, 1 + 0.1 * REACH), rel=1e-6)
        # t(0.975, 1) = 12.7062; two values 0 and 2 have standard deviation sqrt 2, so the standard error is 1.
        assert evaluation.interval(torch.tensor([0.0, 2.0]), 0.95) == pytest.approx(
            (1 - 12.7062, 1 + 12.7062), rel=1e-5
        )

    def test_equal_values_say_nothing_of_their_spread(self):
        assert evaluation.interval(torch.full((3,), 0.7, dtype=torch.float64)) == (-math.inf, math.inf)
        assert evaluation.interval(about(0.7, 1e-15)) == (-math.inf, math.inf)  # equal up to rounding

    def test_refusals(self):
        for values in (torch.zeros(1), torch.tensor([0.0, math.nan]), torch.tensor([0.0, math.inf]), torch.zeros(2, 2)):
            with pytest.raises(Refused):
                evaluation.interval(values)


ONE = torch.ones(3, dtype=torch.float64)  # so far lies the original above the floor: a loss is a share


class TestOutcome:
    @pytest.mark.parametrize(("retain", "word"), [
        (0.1 - 0.0169, "keeps"), (0.1 - 0.0168, "unclear"), (0.1 + 0.0168, "unclear"), (0.1 + 0.0169, "damages"),
    ])  # fmt: skip
    def test_on_retain(self, retain, word):
        found = evaluation.outcome(losses(retain, 0.5), ONE, MARGIN)  # the interval reaches 0.016859 either way
        assert found.on_retain == word and found.on_forget == "unclear"
        assert found.retain == pytest.approx((retain - 0.01 * REACH, retain + 0.01 * REACH), rel=1e-6)

    @pytest.mark.parametrize(("forget", "word"), [
        (0.5 - 0.0169, "remembers"), (0.5 - 0.0168, "unclear"), (0.5 + 0.0168, "unclear"), (0.5 + 0.0169, "forgets"),
        (0.8 + 0.0168, "forgets"), (0.8 + 0.0169, "destroys"),
    ])  # fmt: skip
    def test_on_forget(self, forget, word):
        found = evaluation.outcome(losses(0.1, forget), ONE, MARGIN)
        assert found.on_forget == word and found.on_retain == "unclear"
        assert found.share == pytest.approx((forget - 0.01 * REACH, forget + 0.01 * REACH), rel=1e-6)

    def test_a_share_is_of_what_there_was_to_lose(self):
        half = evaluation.outcome(losses(0.0, 0.45), ONE / 2, MARGIN)
        assert half.share == pytest.approx((0.9 - 0.02 * REACH, 0.9 + 0.02 * REACH), rel=1e-6) and half.holds
        assert evaluation.share_lost(losses(0, 0.3), torch.tensor([0.3, 0.6, 0.9])).mean() == pytest.approx(0.5)
        with pytest.raises(Refused, match="nothing to lose"):
            evaluation.share_lost(losses(0, 0.3), -ONE)

    def test_the_level_matters(self):
        # t(0.995, 2) = 9.9248 makes the reach 0.0573: what was clear at 0.9 is not at 0.99.
        assert evaluation.outcome(losses(0.05, 0.55), ONE, MARGIN)[2:] == ("keeps", "forgets")
        assert evaluation.outcome(losses(0.05, 0.55), ONE, MARGIN, 0.99)[2:] == ("unclear", "unclear")

    def test_the_threshold_itself_is_on_neither_side(self):
        exact = torch.tensor([[0.25, 0.5], [0.25, 0.5]])
        assert evaluation.outcome(exact, torch.ones(2), 0.25)[2:] == ("unclear", "unclear")

    def test_other_shapes_are_refused(self):
        with pytest.raises(Refused, match=r"losses are \(S, 2\).*not \(2, 3\)"):
            evaluation.outcome(torch.zeros(2, 3), torch.ones(2), MARGIN)


class TestRival:
    OURS = losses(0.0, 0.7)
    UNEVEN = torch.tensor([[0.0, 0.001], [0.0, -0.002], [0.0, 0.001]])  # equal gaps would say nothing of their spread

    @pytest.mark.parametrize(("retain", "forget", "word"), [
        (0.0, 0.7, "succeeds"),
        (0.0, 0.9, "succeeds"),
        (0.2, 0.7, "fails"),        # damages
        (0.0, 0.0, "fails"),        # remembers
        (0.1, 0.7, "unclear"),      # may damage
        (0.0, 0.6, "fails"),        # keeps and forgets, but less than ours in every repetition
        (0.1, 0.6, "fails"),
    ])  # fmt: skip
    def test_against_ours(self, retain, forget, word):
        assert evaluation.compare(losses(retain, forget) + self.UNEVEN, self.OURS, ONE, MARGIN) == word

    def test_may_remember(self):
        assert evaluation.compare(losses(0.0, 0.5), losses(0.0, 0.5), ONE, MARGIN) == "unclear"

    def test_repetitions_are_paired(self):
        """0.05 less than ours in each repetition, where repetitions differ by 0.2: shown by pairs alone."""
        ours = torch.stack([about(0.0, 0.01), about(1.0, 0.2)], 1)
        less = ours - torch.tensor([0.0, 0.05]) + self.UNEVEN
        assert evaluation.compare(less, ours, ONE, MARGIN) == "fails"
        assert evaluation.compare(less.flip(0), ours, ONE, MARGIN) == "succeeds"  # gaps -0.45, -0.05, 0.35

    def test_equal_gaps_do_not_decide(self):
        assert evaluation.compare(self.OURS - 0.05, self.OURS, ONE, MARGIN) == "succeeds"

    def test_more_forgetting_in_exchange_for_nothing_is_no_failure(self):
        gaps = torch.tensor([[0.0, -0.01], [0.0, 0.0], [0.0, 0.01]], dtype=torch.float64)
        assert evaluation.compare(self.OURS + gaps, self.OURS, ONE, MARGIN) == "succeeds"  # upper end above 0

    def test_unlike_shapes_are_refused(self):
        with pytest.raises(Refused, match="pair up"):
            evaluation.compare(self.OURS, self.OURS[:2], ONE, MARGIN)


class TestFrontier:
    def test_by_hand(self):
        points = {"a": (0.1, 0.5), "b": (0.2, 0.9), "c": (0.2, 0.8), "d": (0.3, 0.9), "e": (0.05, 0.1), "f": (0.1, 0.4)}
        assert evaluation.frontier(points) == ["a", "b", "e"]

    def test_equal_points_both_stay(self):
        assert evaluation.frontier({"a": (0.1, 0.5), "b": (0.1, 0.5), "c": (0.2, 0.4)}) == ["a", "b"]

    def test_one_and_none(self):
        assert evaluation.frontier({"a": (1.0, -1.0)}) == ["a"] and evaluation.frontier({}) == []
