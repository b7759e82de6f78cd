"""The numbers behind the claims as tables: rows of strings, the first names the columns."""

import math

from memlib import metrics
from memlib.papers.learning_rate.study import rules
from memlib.papers.learning_rate.study.results import (
    Digits,
    Dimensions,
    Gaps,
    Memory,
    Relaxation,
    Results,
    Smoothness,
    Theorem,
)

Rows = list[list[str]]


def tables(results: Results) -> dict[str, Rows]:
    """The tables of the groups that were run, by title."""
    found: dict[str, Rows] = {}
    if results.memory:
        found["Memory by learning rate"] = _memory(results.memory)
        found["Power of η in the excess risk"] = _powers(results.memory)
    if results.theorem:
        found["Powers in the excess risk"] = _theorem(results.theorem)
    if results.gaps:
        found["Power of the smallest gap"] = _gaps(results.gaps)
    if results.smoothness:
        found["Roughness by learning rate"] = _smoothness(results.smoothness)
    if results.relaxations:
        found["Relaxations"] = _relaxations(results.relaxations)
    if results.dimensions:
        found["Memory by dimension"] = _dimensions(results.dimensions)
    if results.digits:
        found["Effective model memorization (EMM) on digits"] = _brackets(results.digits)
        found["The frontier on digits"] = _walks(results.digits)
    return found


def _span(interval: tuple[float, float], digits: int = 2) -> str:
    if math.isinf(interval[0]):
        return "equal in all runs"  # so nothing is known of their spread
    return f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def _memory(found: Memory) -> Rows:
    rows = [["η", "excess risk", "at a quarter", "full batch", "memorized", "interval", "diverged"]]
    for e, eta in enumerate(found.rates):
        means = [values[e].mean() for values in (found.excess, found.quarter, found.full_batch)]
        interval = _span(metrics.mean_interval(found.fraction[e], bounds=(0, 1)), 3)
        lost = int(found.diverged["mini-batch"][e, :, -1].sum())
        numbers = [f"{mean:.3f}" for mean in means]
        rows.append([f"{eta:.0e}", *numbers, f"{found.fraction[e].mean():.3f}", interval, str(lost)])
    return rows


def _powers(found: Memory) -> Rows:
    rows = [["comparison", "power", "interval"]]
    return rows + [[name, f"{mean:.2f}", _span(ends)] for name, (mean, ends) in rules.risk_powers(found).items()]


def _theorem(found: Theorem) -> Rows:
    rows = [["factor", "in the bound", "at η = 1e-3", "above the threshold"]]
    for name, (stated, values, over) in rules.factors(found).items():
        told = [f"{mean:.2f} {_span(ends)}" for mean, ends in (rules.power(part, over) for part in values)]
        rows.append([name, str(stated), *told])
    return rows


def _gaps(found: Gaps) -> Rows:
    rows = [["gaps", "power", "interval"]]
    rows += [[name, f"{mean:.2f}", _span(ends)] for name, (mean, ends) in rules.gap_powers(found).items()]
    mean, ends = rules.own_gap_power(found)
    return [*rows, ["spacing, over that of a silent network", f"{mean:.2f}", _span(ends)]]


def _smoothness(found: Smoothness) -> Rows:
    rows = [["η", "roughness of s over that of s*", "flat runs"]]
    mean = found.rough[:, :, -1].mean(1)
    parts = zip(found.rates, mean, rules.flat(found), strict=True)
    return rows + [[f"{eta:.0e}", f"{value:.3f}", f"{flat:.2f}"] for eta, value, flat in parts]


def _relaxations(found: dict[str, Relaxation]) -> Rows:
    rows = [["network", "excess risk at its smallest rate", "least", "at its largest rate", "diverged"]]
    for kind, one in found.items():
        means = one.excess.mean(1)
        numbers = [f"{value:.2f}" for value in (means[0], means.min(), means[-1])]
        rows.append([kind, *numbers, str(int((~one.alive).sum()))])
    return rows


def _dimensions(found: Dimensions) -> Rows:
    parts = [rules.better(part).mean(1).clamp_min(0) for part in (found.memorized, found.of_optimum, found.of_truth)]
    rows = [["d", "memorized", "of s* learnt", "of the true score learnt"]]
    return rows + [[str(d), *(f"{part[i]:.2f}" for part in parts)] for i, d in enumerate(found.dims)]


def _brackets(found: Digits) -> Rows:
    rows = [["η (Adam)", "batch", "EMM, one bracket a network"]]
    for one in found.brackets:
        ends = [f"[{low:.0f}, {high:.0f})" if high else f"{low:.0f} or more" for low, high in one.sizes]
        rows.append([f"{one.rate:.0e}", str(one.batch), ", ".join(ends)])
    return rows


def _walks(found: Digits) -> Rows:
    rows = [["η (Adam)", "schedule", "steps", "memorized", "held-out loss", "Frechet distance"]]
    for walk in found.walks:
        for part, (copied, loss, distance) in zip(("1/8", "1/4", "1/2", "all"), walk.looks.mean(0), strict=True):
            rows.append([f"{walk.rate:.0e}", walk.schedule, part, f"{copied:.2f}", f"{loss:.2f}", f"{distance:.1f}"])
    return rows
