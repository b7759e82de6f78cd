"""The numbers behind the claims as tables: rows of strings, the first names the columns."""

import math

import torch
from torch import Tensor

from memlib import metrics
from memlib.papers.learning_rate.study import digits_rules, measures
from memlib.papers.learning_rate.study.results import (
    Digits,
    Dimensions,
    Edge,
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
        found["Excess risk by learning rate"] = _memory(results.memory)
        found["What a rate does and annealing undoes"] = _effects(results.memory)
    if results.theorem:
        found["Excess risk by multiples of the threshold"] = _thresholds(results.theorem)
        found["Powers in the excess risk"] = _powers(results.theorem)
    if results.edge:
        found["Minima at multiples of the edge, full batch"] = _leaving(results.edge)
        found["Where sharpness settles"] = _settled(results.edge)
    if results.gaps:
        found["Power of the smallest gap"] = _gaps(results.gaps)
    if results.smoothness:
        found["Roughness by learning rate"] = _smoothness(results.smoothness)
    if results.relaxations:
        found["Relaxations"] = _relaxations(results.relaxations)
    if results.dimensions:
        found["Memory by dimension"] = _dimensions(results.dimensions)
    if results.digits:
        found["Effective model memorization (EMM) on digits"] = _emm(results.digits)
        found["Digits at the end of training"] = _ends(results.digits)
    return found


def estimate(values: Tensor, digits: int = 2) -> str:
    """Mean of values (N,) with its interval, as text."""
    mean = f"{float(values.double().mean()):.{digits}f}"
    return f"{mean} {span(metrics.mean_interval(values.double()), digits)}" if len(values) > 1 else mean


def span(interval: tuple[float, float], digits: int = 2) -> str:
    """An interval as text."""
    if math.isinf(interval[0]):
        return "(equal in all runs)"  # so nothing is known of their spread
    return f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def _memory(found: Memory) -> Rows:
    rows = [["η", "arm", "at the rate", "annealed", "units left", "sharpness/edge", "diverged"]]
    for e, eta in enumerate(found.rates):
        for arm, excess in found.excess.items():
            sharp = f"{found.sharp[arm][e].median():.2f}" if arm in found.sharp else ""
            lost = str(int(found.diverged[arm][e, :, -1].sum()))
            inside = f"{found.inside[arm][1, e].mean():.2f}"
            rows.append([f"{eta:.0e}", arm, *(estimate(part[e]) for part in excess[1:]), inside, sharp, lost])
    return rows


def _effects(found: Memory) -> Rows:
    """What annealing undoes is stability; the rest is against the smallest rate."""
    rows = [["η", "arm", "undone", "not undone", "memorized", "annealed", "returns"]]
    for e, eta in enumerate(found.rates):
        for arm in found.excess:
            undone = estimate(measures.reversible(found, arm)[e])
            stays = estimate(measures.irreversible(found, arm)[e]) if e else ""
            copies = ["", "", ""]
            if arm == "mini-batch":
                copies = [f"{part[e].mean():.2f}" for part in found.fraction]
                copies.append(estimate(measures.remembered(found)[e]))
            rows.append([f"{eta:.0e}", arm, undone, stays, *copies])
    return rows


def _thresholds(found: Theorem) -> Rows:
    rows = [["η / threshold", "excess risk/R(0)", "of the zero function", "stable networks"]]
    for multiple, excess, sharp in zip(found.multiples, found.relative, found.sharp, strict=True):
        stable = metrics.Count(int((sharp <= 1).sum()), sharp.numel())
        ratio = excess.mean(1) / found.silent.double().mean(1)
        rows.append([f"{multiple:g}", estimate(excess.mean(1)), estimate(ratio), f"{stable.k}/{stable.n}"])
    return rows


def _powers(found: Theorem) -> Rows:
    low, high = found.multiples[1], found.multiples[-1]
    rows = [["factor", "in the bound", f"at {low:g} of the threshold", f"at {high:g} times"]]
    for name, (stated, values, over) in measures.factors(found).items():
        told = [f"{mean:.2f} {span(ends)}" for mean, ends in (measures.power(part, over) for part in values)]
        rows.append([name, str(stated), *told])
    return rows


def _leaving(found: Edge) -> Rows:
    rows = [["η / edge", "left", "mini-batch", "excess later", "sharpness/edge later"]]
    leaving = found.leaving
    for i, rho in enumerate(leaving.rho):
        left = [str(metrics.Count(int((rise[i] > 1.5).sum()), rise.shape[1])) for rise in leaving.rise.values()]
        rows.append([f"{rho:g}", *left, *(f"{part[i].median():.2f}" for part in leaving.ends)])
    return rows


def _settled(found: Edge) -> Rows:
    rows = [["arm", "η", "sharpness/edge", "with kinks", "gradient/start"]]
    for arm, sharp in found.sharpness.items():
        for e, eta in enumerate(found.rates["Adam" if arm.startswith("Adam") else "SGD"]):
            kinks = f"{found.with_kinks[arm][-3:, e].mean():.2f}"
            slope = f"{found.gradient[arm][-1, e].median():.3f}"
            rows.append([arm, f"{eta:g}", estimate(sharp[-3:, e].mean(0)), kinks, slope])
    return rows


def _gaps(found: Gaps) -> Rows:
    rows = [["gaps", "Δ", f"missing of s* at {found.rate:.0e}", f"at {found.control_rate:.0e}, annealed", "difference"]]
    for name, values in {"spacing": found.spacings, "pairs": found.openings}.items():
        for value, here, control in zip(values, found.missing[name], found.control[name], strict=True):
            rows.append([name, f"{value:g}", *map(estimate, (here, control, here - control))])
        mean, ends = measures.gap_rises(found)[name]
        rows.append([name, "per doubling", "", "", f"{mean:.2f} {span(ends)}"])
    return rows


def _smoothness(found: Smoothness) -> Rows:
    rows = [["η", "initial", "at the rate", "annealed", "over the initial", "flat runs"]]
    ratio = measures.roughness(found)
    for e, flat in enumerate(measures.flat(found)):
        means = [f"{value:.2f}" for value in found.rough[:, e, :, -1].mean(1)]
        known = ratio[e][~ratio[e].isnan()]
        rows.append([f"{found.rates[e]:.0e}", *means, estimate(known, 3) if len(known) else "", f"{flat:.2f}"])
    return rows


def _relaxations(found: dict[str, Relaxation]) -> Rows:
    rows = [["network", "excess risk at its smallest rate", "least", "at its largest rate", "diverged"]]
    for kind, one in found.items():
        means = one.excess.mean(1)
        numbers = [f"{value:.2f}" for value in (means[0], means.min(), means[-1])]
        rows.append([kind, *numbers, str(int((~one.alive).sum()))])
    return rows


def _dimensions(found: Dimensions) -> Rows:
    rows = [["d", "memorized", "by s* itself", "s* learnt", "true score", "true score from 5,000 points"]]
    parts = (found.memorized, found.exact, found.of_optimum, found.of_truth, found.control)
    for i, d in enumerate(found.dims):
        cells = [estimate(part[i]) if float(part[i].mean()) > -1 else "below -1" for part in parts]
        rows.append([str(d), *cells])
    return rows


def _emm(found: Digits) -> Rows:
    rows = [["η (Adam)", "EMM, models that choose", "that test", *(f"copied, n = {n}" for n in found.sizes)]]
    sizes = 2 ** digits_rules.emm(found)
    for e, eta in enumerate(found.rates):
        parts = sizes[e, : found.choosing], sizes[e, found.choosing :]
        means = [" ".join(f"{value:.1f}" for value in part) for part in parts]
        rows.append([f"{eta:g}", *means, *(f"{share[e].mean():.2f}" for share in found.copied)])
    return rows


def _ends(found: Digits) -> Rows:
    rows = [["arm", "η", "copied", "training loss", "held-out loss", "Frechet distance", "sharpness/edge"]]
    for looks, skip in ((found.constant, found.choosing), (found.annealed, 0), (found.sgd, 0)):
        for e, eta in enumerate(looks.rates):
            values = digits_rules.ends(looks, skip)[e]
            cells = [estimate(part, 3) for part in values.T]
            rows.append([looks.name, f"{eta:g}", *cells, f"{torch.median(looks.sharp[e]):.2f}"])
    return rows
