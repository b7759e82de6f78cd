"""G4: how many samples are training points, and how many distinct training points are among them?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from memlib.analytic import GaussianMixture
from memlib.metrics import expected_unique, extrapolate_unique
from memlib.noise import karras
from memlib.sample import ancestral, start

FIRST = 500  # samples that an extrapolation may look at
BUDGETS = (50, 100, 200, FIRST, 1000, 2000, 4000)  # and all samples


@dataclass(frozen=True)
class Distinct:
    """Counts of one run of the memorizer, by the number of samples looked at, beside what the formulas expect."""

    budgets: Tensor  # (K,): numbers of samples
    copied: Tensor  # (K,): samples that are a member
    distinct: Tensor  # (K,): distinct members among them
    probability: Tensor  # (M,): of each member per sample
    plug_in: Tensor  # (K,): distinct members expected from the frequencies in the first FIRST samples
    chao: Tensor  # (K,): the same by the estimator of Chao et al. 2014

    @property
    def formula(self) -> Tensor:
        """Distinct members expected from the true probabilities, (K,)."""
        return expected_unique(self.probability, self.budgets)

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of the number of distinct members, (K,), as if members came out independently.

        They compete for samples, so this is a little too wide.
        """
        missed = (1 - self.probability) ** self.budgets[:, None]  # that a member has not come out yet
        return (missed * (1 - missed)).sum(1).sqrt()


def measure(targets: Tensor, n_samples: int) -> Distinct:
    """Sample a memorizer of targets (T, 2) whose weights fall like 1/i; every second target is a member."""
    member = torch.arange(len(targets)) % 2 == 1
    uneven = GaussianMixture(targets, 1 / torch.arange(1.0, len(targets) + 1))
    grid = karras(40)
    ends = ancestral(uneven, start(grid, range(n_samples), (2,), dtype=targets.dtype), grid)
    hits = torch.cdist(ends, targets).argmin(1)
    return count(hits, member, uneven.weights)


def count(hits: Tensor, member: Tensor, weights: Tensor) -> Distinct:
    """Count the members among the first samples, for each budget.

    Arguments:
        hits: the target that each sample is, (n,).
        member: which targets are members, (T,) bool.
        weights: the probability of each target per sample, (T,).
    """
    budgets = torch.tensor([n for n in BUDGETS if n < len(hits)] + [len(hits)])
    found = [hits[:n][member[hits[:n]]] for n in budgets]
    seen = torch.bincount(hits[:FIRST], minlength=len(member))[member]
    return Distinct(
        budgets=budgets,
        copied=torch.tensor([len(one) for one in found]),
        distinct=torch.tensor([len(one.unique()) for one in found]),
        probability=weights[member],
        plug_in=expected_unique(seen / FIRST, budgets),
        chao=extrapolate_unique(seen, FIRST, budgets),
    )
