"""The numbers behind the claims, as tables: rows of strings, the first row names the columns."""

from collections.abc import Mapping

from torch import Tensor

from memlib.papers.i2i.evaluation import interval, outcome
from memlib.papers.i2i.study.comparison import RETAIN_ONLY, Family
from memlib.papers.i2i.study.judging import Scores
from memlib.papers.i2i.study.knowledge import STEPS
from memlib.papers.i2i.study.results import Results

Rows = list[list[str]]

STAGES = (
    "Stages of the diffusion encoder, 0 the first convolution: fraction of the squared distance from forget codes to "
    "those of noise, and how far forget and retain codes moved, as a fraction of the way"
)


def tables(results: Results) -> dict[str, Rows]:
    """Every table that these results fill, by its title."""
    return {title: rows for title, rows in _every(results).items() if len(rows) > 1}


def mean_and_interval(values: Tensor) -> str:
    """Mean of repetitions (S,) with its 90 % interval, as text."""
    low, high = interval(values)
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def _every(results: Results) -> dict[str, Rows]:
    count = len(results.gate.losses)
    families = results.methods or {}
    found = {
        f"Cosine of the original and its losses (90 % intervals, {count} repetitions)": _methods(
            families, results.margin
        ),
        "Loss on forget images beyond that by the retain term alone, 90 % intervals": _beyond(families),
    }
    for family in families.values():
        if family.stages is not None:
            rows = [[str(i), *(f"{value:.2f}" for value in row)] for i, row in enumerate(family.stages)]
            found[STAGES] = [["stage", "fraction", "forget", "retain"], *rows]
    if results.crops:
        found[_losses("Smaller and larger holes")] = _arms(
            {f"{k} x {k}": results.crops.losses[k] for k in sorted(results.crops.losses)}
        )
    for title, part in (
        ("Weight of the forget term", results.alpha),
        ("Kinds of noise", results.noise),
        ("Retain data", results.data),
    ):
        if part:
            found[_losses(title)] = _arms(part.losses)
    if results.tasks:
        found["Tasks: losses with 90 % intervals"] = [
            ["task", "hidden", "original above filling", "loss on retain", "loss on forget"],
            *(
                [task, f"{100 * hidden:.0f} %", mean_and_interval(results.tasks.above[task, hidden])]
                + [mean_and_interval(column) for column in loss.T]
                for (task, hidden), loss in results.tasks.losses.items()
            ),
        ]
    if results.second:
        names = [name for group, name in results.second.cosine if group == "R"]
        rows = [[name, *(mean_and_interval(results.second.cosine[g, name]) for g in "RF")] for name in names]
        title = "Second completion, by where its centre is from: cosine with 90 % intervals"
        found[title] = [["centre", "retain", "forget"], *rows]
    if results.probe:
        probes = [[name, mean_and_interval(values)] for name, values in results.probe.probe.items()]
        title = "Fraction of forget images whose class a linear probe names, 90 % intervals"
        found[title] = [["codes of", "fraction"], *probes]
        curves = [
            [name, *(f"{value:.2f}" for value in curve.mean(0))] for name, curve in results.probe.relearning.items()
        ]
        found["Cosine on forget images after steps on five images a class"] = [["model", *map(str, STEPS)], *curves]
    return found


def _losses(title: str) -> str:
    return f"{title}: losses with 90 % intervals"


def _arms(losses: Mapping[str, Tensor]) -> Rows:
    """Losses (S, 2), a row an arm."""
    rows = [[name, *map(mean_and_interval, loss.T)] for name, loss in losses.items()]
    return [["", "loss on retain", "loss on forget"], *rows]


def _methods(families: Mapping[str, Family], margin: float) -> Rows:
    """The original, the retain term alone and every method at its weight, in every family."""
    rows = [
        ["family", "method", "alpha", "loss on retain", "loss on forget", "words", "Frechet R, F", "Inception R, F"]
    ]
    for name, family in families.items():
        cosines = [f"cosine {value:.3f}" for value in family.original.cosine.mean(0)]
        rows.append([name, "original", "", *cosines, "", *_quality(family.original)])
        arms = [("retain term alone", *RETAIN_ONLY), *((method, method, best) for method, best in family.best.items())]
        for title, method, weight in arms:
            losses = family.losses(method, weight)
            _, _, on_retain, on_forget = outcome(losses, margin)
            row = [name, title, f"{weight:g}", *map(mean_and_interval, losses.T), f"{on_retain}, {on_forget}"]
            rows.append([*row, *_quality(family.arms[method, weight])])
    return rows


def _quality(scores: Scores) -> list[str]:
    """Mean Frechet distance and Inception score, of retain and of forget images."""
    (near, far), (some, others) = scores.frechet.mean(0), scores.inception.mean(0)
    return [f"{near:.0f}  {far:.0f}", f"{some:.2f}  {others:.2f}"]


def _beyond(families: Mapping[str, Family]) -> Rows:
    """What the forget term of the three baselines adds to the retain term that they share."""
    rows = [
        [name, method, mean_and_interval((family.losses(method) - family.retain_only())[:, 1])]
        for name, family in families.items()
        for method in ("Max Loss", "Noisy Label", "Retain Label")
    ]
    return [["family", "method", "more"], *rows]
