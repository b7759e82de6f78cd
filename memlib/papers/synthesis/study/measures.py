"""From scores to rates: what an attack finds, judged over targets, pairs and images."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from memlib import membership, metrics
from memlib.membership import crossed_interval, pair_rates
from memlib.papers.synthesis.attacks import Score, Statistic, judged
from memlib.papers.synthesis.pool import KINDS
from memlib.papers.synthesis.study.results import Attack, Rate
from memlib.shapes import Bool, Float, Shaped


def groups(kind: Shaped[Tensor, " n"]) -> dict[str, Bool[Tensor, " n"]]:
    """Which images are judged, (N,) by name: all of them, and each `kind` (N,)."""
    whole = torch.ones_like(kind, dtype=torch.bool)
    return {"all": whole} | {name: kind == k for k, name in enumerate(KINDS)}


def rates(
    scores: Float[Tensor, "t n"], inside: Bool[Tensor, "t n"], kind: Shaped[Tensor, " n"], rate: float
) -> tuple[dict[str, Rate], Bool[Tensor, "t n"]]:
    """True-positive rates by who is judged, at thresholds from other targets, and the hits (T, N)."""
    found, hits = {}, torch.zeros_like(inside)
    for name, within in groups(kind).items():
        at = membership.transferred(scores, inside, rate, within)
        hits = at.hits
        low, high = crossed_interval(hits.double(), inside & within)
        tpr, fpr = (sum(one.k for one in part) / sum(one.n for one in part) for part in (at.tpr, at.fpr))
        found[name] = Rate(tpr, low, high, fpr, sum(one.n for one in at.tpr))
    return found, hits


def attack(
    statistic: Statistic,
    trained: str,
    way: tuple[str, Score | None],
    inside: Tensor,
    kind: Tensor,
    wanted: Iterable[float],
) -> Attack:
    """One row of the table of threats, for members `inside` (T, N) and kinds (N,) of images.

    Rates that the images do not resolve are left out.
    """
    scores = judged(statistic.values, inside, way[1])
    found = {rate: rates(scores, inside, kind, rate)[0] for rate in wanted if resolved(inside, rate)}
    areas = [metrics.auc(row[seen], row[~seen])[0] for row, seen in zip(scores, inside, strict=True)]
    mean, ends = areas_of(areas)
    return Attack(statistic.threat, trained, statistic.name, way[0], (mean, *ends), found)


def resolved(inside: Bool[Tensor, "t n"], rate: float) -> bool:
    """Whether the non-members of the other targets, pooled, resolve a false-positive rate, for members (T, N): there
    must be 1 / rate of them."""
    others = (~inside).sum(1).double()
    return float((len(inside) - 2) * others.min() * rate) >= 1


def areas_of(areas: list[float]) -> tuple[float, tuple[float, float]]:
    """The mean AUC over targets, and its interval over pairs."""
    by_pair = torch.tensor(areas, dtype=torch.float64).view(-1, 2).mean(1)
    return float(by_pair.mean()), metrics.mean_interval(by_pair, bounds=(0, 1))


def by_pair(
    scores: Float[Tensor, "t n"], inside: Bool[Tensor, "t n"], rate: float, within: Tensor | None = None
) -> Float[Tensor, " p"]:
    """The true-positive rate of each pair of complements, (P,)."""
    return torch.tensor(pair_rates(membership.transferred(scores, inside, rate, within).tpr), dtype=torch.float64)


def curves(
    scores: Float[Tensor, "t n"], inside: Bool[Tensor, "t n"], grid: Float[Tensor, " g"]
) -> Float[Tensor, "p g"]:
    """The ROC curve of each pair of complements on a grid of false-positive rates, (P, G)."""
    found = []
    for seen, values in zip(inside, scores, strict=True):
        fpr, tpr = metrics.roc(values[seen], values[~seen])
        at = torch.searchsorted(fpr, grid.double(), right=True) - 1  # the last point whose rate is at most that
        found.append(tpr[at])
    return torch.stack(found).unflatten(0, (-1, 2)).mean(1)


def accuracy_by_pair(right: Bool[Tensor, "t m"]) -> Float[Tensor, " p"]:
    """The accuracy of each pair of pipelines, (T, M) -> (P,)."""
    return right.double().mean(1).view(-1, 2).mean(1)


def accuracies(right: Mapping[float, Bool[Tensor, "t m"]]) -> Float[Tensor, "x p"]:
    """`accuracy_by_pair` of answers (T, M) by a number, such as a size, (X, P)."""
    return torch.stack([accuracy_by_pair(one) for one in right.values()])


def difference(
    a: Shaped[Tensor, "t n"], b: Shaped[Tensor, "t n"], counted: Bool[Tensor, "t n"]
) -> tuple[float, tuple[float, float]]:
    """The mean of a - b, (T, N) each, over the cells that count, with its interval over pairs and images."""
    apart = a.double() - b.double()
    mean = float(apart[counted].mean())
    return mean, crossed_interval(apart, counted, bounds=(-1, 1))


def share(values: Shaped[Tensor, "t n"], counted: Bool[Tensor, "t n"]) -> tuple[float, tuple[float, float]]:
    """The mean of values (T, N) over the cells that count, with its interval over pairs and images."""
    mean = float(values.double()[counted].mean())
    return mean, crossed_interval(values.double(), counted)


def earliest(right: Mapping[str, Tensor], names: Iterable[str], goal: float) -> str:
    """The first of `names` whose mean accuracy, from answers (T, M), reaches the goal; else the last."""
    names = list(names)
    return next((name for name in names if float(right[name].double().mean()) >= goal), names[-1])
