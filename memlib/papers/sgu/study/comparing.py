"""The comparisons that the rules are made of: shares, their differences by seed, and what decides a gate."""

import torch
from torch import Tensor

from memlib import metrics
from memlib.papers.sgu.study.results import Answers, Inpainting, Likelihoods, Reconstruction, Samples, Tuning

GATE = 0.03  # of the samples of the retrained model, the fraction that must surely hold forgotten content
EITHER = 0.975  # level of an interval where either of two arms may pass
DROP = 0.2  # fraction of forgotten images whose class the standard model must lose before U5 can be asked
LEAST = 3  # seeds
_SLACK = 0.05  # loss of the class on retained images, or of precision, that still counts as none

Interval = tuple[float, float]


def rate(samples: Samples, task: str, arm: str) -> float:
    """The unlearning ratio on the first process, mean over seeds."""
    return mean(samples.judged[task, samples.processes[0], arm].found / samples.n)


def share_interval(counts: Tensor, n: int) -> Interval:
    """The interval of a fraction from counts of n samples (S,): over seeds if there are several, else of one count."""
    if len(counts) > 1:
        return metrics.mean_interval(counts / n, bounds=(0, 1))
    return metrics.Count(int(counts), n).interval()


def difference(a: Tensor, b: Tensor, level: float = 0.95) -> Interval:
    """The interval over seeds of the difference of two fractions, (S,) and (T,): of the seeds that both have."""
    both = min(len(a), len(b))
    return metrics.mean_interval(a[:both] - b[:both], level, bounds=(-1, 1))


def below(samples: Samples, arm: str, other: str = "unseen", level: float = 0.95) -> bool:
    """Whether an arm has a smaller unlearning ratio than another at no lower a precision, by interval."""
    a, b = (samples.judged["main", samples.processes[0], name] for name in (arm, other))
    kept = difference(a.precision, b.precision, level)[0] > -_SLACK
    return kept and difference(a.found / samples.n, b.found / samples.n, level)[1] < 0


def gate(samples: Samples) -> bool:
    """Whether the retrained model surely makes forgotten content in more than 3 % of its samples, by interval."""
    unseen = samples.judged["main", samples.processes[0], "unseen"]
    return len(unseen.found) >= LEAST and metrics.mean_interval(unseen.sure / samples.n, bounds=(0, 1))[0] > GATE


def rises(likelihoods: Likelihoods) -> dict[tuple[str, str], Tensor]:
    """Arm, side -> rise over the standard model of each seed, mean over test images, (S,)."""
    process = likelihoods.processes[0]
    means = {key[1:]: bits.mean(1) for key, bits in likelihoods.bits.items() if key[0] == process}
    return {key: value - means["standard", key[1]] for key, value in means.items() if key[0] != "standard"}


def unlikely(rise: dict[tuple[str, str], Tensor], arm: str) -> tuple[bool, bool, bool]:
    """Of rises (S,): D_f beyond retraining; D_g below a quarter of it; D_f under retraining below a quarter."""
    own = rise[arm, "D_f"]
    return (
        metrics.mean_interval(own - rise["unseen", "D_f"])[0] > 0,
        metrics.mean_interval(rise[arm, "D_g"] - own / 4)[1] < 0,
        metrics.mean_interval(rise["unseen", "D_f"] - own / 4)[1] < 0,
    )


def hole(likelihoods: Likelihoods) -> dict[str, tuple[float, Interval]]:
    """How well the rise over retraining tells forgotten from retained images, by loss: AUC, interval over images."""
    process = likelihoods.processes[0]
    means = {key[1:]: bits.mean(0) for key, bits in likelihoods.bits.items() if key[0] == process}
    apart = {
        arm: [means[arm, side] - means["unseen", side] for side in ("D_f", "D_g")]
        for arm in likelihoods.arms
        if arm not in ("standard", "unseen")
    }
    return {arm: metrics.auc(*sides) for arm, sides in apart.items()}


def upper_half(inpainting: Inpainting) -> dict[tuple[str, str], Answers]:
    """Arm, side -> answers with the upper half hidden."""
    return {key[1:]: value for key, value in inpainting.answers.items() if key[0] == "upper half"}


def at_time(reconstruction: Reconstruction, time: float) -> dict[tuple[str, str], Answers]:
    """Arm, side -> answers after noise of this time."""
    return {key[1:]: value for key, value in reconstruction.answers.items() if key[0] == time}


def loss_of_standard(reconstruction: Reconstruction, time: float) -> float:
    """The fraction of forgotten images whose class the standard model has lost at a time."""
    return reconstruction.real - mean(reconstruction.answers[time, "standard", "D_f"].same)


def late(reconstruction: Reconstruction) -> float | None:
    """The first time at which the standard model has lost the class of 20 points of the forgotten images."""
    return next((time for time in reconstruction.times if loss_of_standard(reconstruction, time) >= DROP), None)


def lost_and_kept(answers: dict[tuple[str, str], Answers], arm: str) -> tuple[bool, bool, bool]:
    """Whether an arm loses D_f beyond retraining, loses it beyond the standard model, and keeps D_g."""
    more = kept_difference(answers, arm, "unseen", "D_f", EITHER)[1] < 0
    some = kept_difference(answers, arm, "standard", "D_f", EITHER)[1] < 0
    return more, some, kept_difference(answers, arm, "standard", "D_g", EITHER)[0] > -_SLACK


def kept_difference(
    answers: dict[tuple[str, str], Answers], arm: str, other: str, side: str, level: float = 0.95
) -> Interval:
    """The interval over seeds of the fraction that keeps its class, an arm minus another."""
    return difference(answers[arm, side].same, answers[other, side].same, level)


def tuned_difference(tuning: Tuning, process: str, arm: str, other: str) -> Interval:
    """The interval over seeds of the UR after the longest fine-tuning, less that of a network from scratch."""
    return difference(
        tuning.tuned[process, arm, max(tuning.steps)].found / tuning.n, tuning.scratch[process, other] / tuning.n
    )


def tuned_below(tuning: Tuning, process: str, arm: str, other: str) -> bool:
    """Whether the longest fine-tuning has a smaller unlearning ratio than a network from scratch."""
    return tuned_difference(tuning, process, arm, other)[1] < 0


def seeds_of(answers: dict[tuple[str, str], Answers]) -> int:
    """The number of networks of each arm."""
    return len(answers["unseen", "D_f"].same)


def mean(values: Tensor) -> float:
    """The mean of values (S,), counts or numbers."""
    return float(values.to(torch.float64).mean())
