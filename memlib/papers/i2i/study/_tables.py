"""The numbers behind the claims, as tables: rows of strings, the first row names the columns."""

from collections.abc import Mapping

from torch import Tensor

from memlib.papers.i2i.evaluation import interval, outcome, share_lost
from memlib.papers.i2i.study.comparison import RELEASED, RETAIN_ONLY, Family
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
        crops = results.crops
        sizes = {f"{k} x {k}": (crops.losses[k][RELEASED], crops.above[k]) for k in sorted(crops.losses)}
        small = crops.order[1]
        found[_losses("Smaller and larger holes")] = _arms(sizes)
        others = {name: (loss, crops.above[small]) for name, loss in crops.losses[small].items()}
        found[_losses(f"Two baselines beside it at {small} x {small}")] = _arms(others)
    for title, part in (
        ("Weight of the forget term", results.alpha),
        ("Kinds of noise", results.noise),
        ("Retain data", results.data),
    ):
        if part:
            found[_losses(title)] = _arms({name: (loss, results.gate.above) for name, loss in part.losses.items()})
    if results.noise and results.noise.by_chance is not None and results.noise.nearly_zero is not None:
        noise = {
            "squared covariance off the diagonal": results.noise.off_diagonal,
            "the same of shuffled pixels": results.noise.by_chance,
            "entries off the diagonal within 0.1 of 0": results.noise.nearly_zero,
        }
        rows = [[name, mean_and_interval(values)] for name, values in noise.items() if values is not None]
        found["Covariance of the forget images: fractions with 90 % intervals"] = [["", "fraction"], *rows]
    if results.tasks:
        found["Tasks: losses with 90 % intervals"] = [
            ["task", "hidden", "original above filling", *_COLUMNS],
            *(
                [task, f"{100 * hidden:.0f} %", mean_and_interval(results.tasks.above[task, hidden])]
                + _three(loss, results.tasks.above[task, hidden])
                for (task, hidden), loss in results.tasks.losses.items()
            ),
        ]
    for family, second in (results.second or {}).items():
        names = [name for group, name in second.cosine if group == "R"]
        rows = [[name, *(mean_and_interval(second.cosine[g, name]) for g in "RF")] for name in names]
        title = f"Second completion, {family}, by where its centre is from: cosine with 90 % intervals"
        found[title] = [["centre", "retain", "forget"], *rows]
        first = {"first completion, of the centre": (second.losses, second.above)}
        found[_losses(f"First completion, {family}")] = _arms(first)
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


_COLUMNS = ["loss on retain", "loss on forget", "share lost"]


def _three(loss: Tensor, above: Tensor) -> list[str]:
    """Losses (S, 2) and the share lost on forget images, as text; a share only where there is something to lose."""
    share = mean_and_interval(share_lost(loss, above)) if float(above.mean()) > 0 else "nothing to lose"
    return [*map(mean_and_interval, loss.T), share]


def _arms(losses: Mapping[str, tuple[Tensor, Tensor]]) -> Rows:
    """Losses (S, 2) and what there was to lose (S,), a row an arm."""
    return [["", *_COLUMNS], *([name, *_three(*both)] for name, both in losses.items())]


def _methods(families: Mapping[str, Family], margin: float) -> Rows:
    """Floor, original, the retain term alone and every method at its weight, in every family."""
    rows = [["family", "method", "alpha", *_COLUMNS, "words", "Frechet R, F", "Inception R, F"]]
    for name, family in families.items():
        for title, cosine in (("best filling", family.floor), ("original", family.original.cosine)):
            words = [f"cosine {value:.3f}" for value in cosine.mean(0)]
            quality = _quality(family.original) if title == "original" else ["", ""]
            rows.append([name, title, "", *words, "", "", *quality])
        arms = [("retain term alone", *RETAIN_ONLY), *((method, method, best) for method, best in family.best.items())]
        for title, method, weight in arms:
            losses = family.losses(method, weight)
            word = "nothing to lose"
            if float(family.above.mean()) > 0:
                found = outcome(losses, family.above, margin)
                word = f"{found.on_retain}, {found.on_forget}"
            row = [name, title, f"{weight:g}", *_three(losses, family.above), word]
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
        if method in family.best
    ]
    return [["family", "method", "more"], *rows]
