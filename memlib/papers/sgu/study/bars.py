"""Values with their intervals, (value, (low, high)) by name: what the figures of the chapter show."""

import torch
from torch import Tensor

from memlib import metrics
from memlib.papers.sgu.study import rules
from memlib.papers.sgu.study.results import Answers, Likelihoods, Samples

Bars = dict[str, tuple[float, tuple[float, float]]]


def ratios(samples: Samples, task: str = "classes") -> Bars:
    """Arm -> unlearning ratio of the first process, in percent."""
    process, found = samples.processes[0], {}
    for arm in samples.arms:
        low, high = rules.ratio_interval(samples, task, process, arm)
        found[arm] = (100 * rules.rate(samples, task, process, arm), (100 * low, 100 * high))
    return found


def rises(likelihoods: Likelihoods) -> Bars:
    """Arm and side -> mean rise over the standard model, in bits per dimension, by interval over images."""
    return {f"{arm}, {side}": mean(values) for (arm, side), values in rules.rises(likelihoods).items()}


def losses_of_class(answers: dict[tuple[str, str], Answers]) -> Bars:
    """The three differences that decide U4 and U5, for each unlearned arm, in points."""
    found = {}
    for arm in rules.UNLEARNED:
        for other, side in (("unseen", "D_f"), ("standard", "D_f"), ("standard", "D_g")):
            low, high = rules.difference(answers, arm, other, side)
            value = float((answers[arm, side].same - answers[other, side].same).mean())
            found[f"{arm} − {other}, {side}"] = (100 * value, (100 * low, 100 * high))
    return found


def mean(values: Tensor) -> tuple[float, tuple[float, float]]:
    """The mean of values (N,) and its bootstrap interval."""
    generator = torch.Generator().manual_seed(0)
    return float(values.mean()), metrics.paired_interval(values, torch.zeros_like(values), generator=generator)
