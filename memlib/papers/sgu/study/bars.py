"""Values with their intervals over seeds, (value, (low, high)) by name: what the figures of the chapter show."""

from torch import Tensor

from memlib import metrics
from memlib.papers.sgu.study import comparing
from memlib.papers.sgu.study.arms import PRINTED
from memlib.papers.sgu.study.results import Answers, Likelihoods, Samples

Bars = dict[str, tuple[float, tuple[float, float]]]


def shares(samples: Samples, field: str = "found", task: str = "main") -> Bars:
    """Arm -> samples that count in a field of `results.Judged`, such as the unlearning ratio, in percent."""
    found = {}
    for (name, process, arm), judged in samples.judged.items():
        if (name, process) == (task, samples.processes[0]):
            counts = getattr(judged, field)
            low, high = comparing.share_interval(counts, samples.n)
            found[arm] = (100 * float(counts.double().mean()) / samples.n, (100 * low, 100 * high))
    return found


def frontier(samples: Samples) -> dict[str, list[tuple[float, float, float]]]:
    """Loss -> (alpha, precision, UR in points), both less retraining's on the seeds that every alpha was trained on."""
    process, curves = samples.processes[0], dict[str, list[tuple[float, float, float]]]()
    for arm in dict.fromkeys(arm for arm, _ in samples.frontier):
        every = {alpha: judged for (name, alpha), judged in samples.frontier.items() if name == arm}
        seeds = len(next(iter(every.values())).found)
        every[samples.alphas[arm]] = samples.judged["main", process, arm]
        unseen = samples.judged["main", process, "unseen"]
        for alpha, judged in sorted(every.items()):
            precision = (judged.precision[:seeds] - unseen.precision[:seeds]).double().mean()
            more = (judged.found[:seeds] - unseen.found[:seeds]).double().mean()
            curves.setdefault(arm, []).append((alpha, float(precision), 100 * float(more) / samples.n))
    return curves


def rises(likelihoods: Likelihoods) -> Bars:
    """Arm and side -> rise over the standard model, in bits per dimension."""
    return {f"{arm}, {side}": mean(values) for (arm, side), values in comparing.rises(likelihoods).items()}


def losses_of_class(answers: dict[tuple[str, str], Answers]) -> Bars:
    """The three differences that decide U4 and U5, for each loss as printed, in points."""
    found = {}
    for arm in PRINTED:
        for other, side in (("unseen", "D_f"), ("standard", "D_f"), ("standard", "D_g")):
            low, high = comparing.kept_difference(answers, arm, other, side)
            value = float((answers[arm, side].same - answers[other, side].same).mean())
            found[f"{arm} − {other}, {side}"] = (100 * value, (100 * low, 100 * high))
    return found


def mean(values: Tensor) -> tuple[float, tuple[float, float]]:
    """The mean of values (S,) and its interval over seeds."""
    return float(values.double().mean()), metrics.mean_interval(values)
