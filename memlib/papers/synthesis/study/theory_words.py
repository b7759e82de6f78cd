"""The theory of the paper in tables, and in sentences that hold on another processor."""

from collections.abc import Callable
from typing import Any

from memlib import metrics
from memlib.papers.synthesis.study import printed, theory_rules
from memlib.papers.synthesis.study.printed import Printed
from memlib.papers.synthesis.study.results import Results
from memlib.papers.synthesis.study.theory_results import Bound, Gap, Interval, Kernel

Rows = list[list[str]]


def tables(results: Results) -> dict[str, Rows]:
    """The tables of R1, R3, R9 and R13, as far as they were measured, by title."""
    found: dict[str, Rows] = {}
    for name, part in (results.kernel or {}).items():
        found[f"Squared discrepancy of two Gaussians: {name}"] = _kernel(part)
    for name, part in (results.gap or {}).items():
        found[f"Three gaps of classifiers of synthetic sets: {name}"] = _gap(part)
        found[f"The Hoeffding bound: {name}"] = _hoeffding(part)
    for name, part in (results.bound or {}).items():
        found[f"The variational bound, nats: {name}"] = _bound(part)
    if results.settings:
        found |= {f"Table {number} of the paper, misprints starred": printed.rows(number) for number in printed.TABLES}
        found["What is wrong in these tables, missing, or released otherwise"] = printed.faults()
    return found


def _told(value: Interval, digits: int = 3) -> list[str]:
    mean, (low, high) = value
    return [f"{mean:.{digits}f}", f"[{low:.{digits}f}, {high:.{digits}f}]"]


def _mean(values: Any) -> Interval:
    return float(values.mean()), metrics.mean_interval(values)


def _kernel(part: Kernel) -> Rows:
    rows = [["squared discrepancy", "value", "interval over draws"], ["closed form", f"{part.exact:.4f}", ""]]
    rows += [
        ["unbiased estimate", *_told(_mean(part.estimates), 4)],
        ["biased estimate", *_told(_mean(part.biased), 4)],
    ]
    return rows + [[f"equal means, {name}", *_told(_mean(one), 4)] for name, one in part.equal_means.items()]


def _gap(part: Gap) -> Rows:
    rows = [["loss", "gap", "mean", "interval over pairs and images"]]
    for loss, by_name in part.gaps.items():
        rows += [[loss, name, *_told(value)] for name, value in by_name.items()]
        rows += [[loss, f"loss, {name}", f"{value:.3f}", ""] for name, value in part.errors[loss].items()]
    return rows


def _hoeffding(part: Gap) -> Rows:
    kept = int((part.largest <= part.small_sharp).sum())
    return [
        ["class", "rules", "examples", "eq. 13", "eq. 14", "largest gap seen"],
        ["classifiers", f"2^(32 x {part.weights})", str(part.examples), f"{part.printed:.1f}", f"{part.sharp:.1f}",
         f"{part.gaps['0/1']['train to fresh synthetic'][0]:.3f} (mean)"],
        ["linear", str(part.rules), "members of a pipeline", f"{part.small_printed:.3f}", f"{part.small_sharp:.3f}",
         f"{float(part.largest.max()):.3f}, {kept} of {len(part.largest)} draws within eq. 14"],
    ]  # fmt: skip


def _bound(part: Bound) -> Rows:
    rows = [["model", "levels T", "measured against", "above it", "interval"]]
    for count, gap in zip(part.levels, part.gaps, strict=True):
        rows.append(["exact denoiser", str(count), "the mixture", *_told(_mean(gap))])
    fine, coarse = part.network_levels
    rows.append(["networks", str(fine), "the mixture", *_told(_mean(part.networks))])
    return [*rows, ["networks", str(coarse), "their own chain", *_told(_mean(part.slack))]]


def _said_of_kernel(found: Kernel) -> list[str]:
    apart = {name: metrics.mean_interval(values)[0] > 0 for name, values in found.equal_means.items()}
    return [
        f"the supremum of eq. 17 is reached by the witness: {'yes' if abs(found.reached - 1) < 1e-3 else 'no'}",
        *(
            f"two laws of equal mean told apart by the {name}: {'yes' if seen else 'no'}"
            for name, seen in apart.items()
        ),
        f"R1: {theory_rules.r1(found).verdict}",
    ]


def _said_of_gap(found: Gap) -> list[str]:
    missing = found.gaps["0/1"]["fresh synthetic to real"][1][0]
    held = float((found.largest <= found.small_sharp).double().mean()) >= 1 - found.delta
    return [
        f"bound of the classifiers on a loss of at most 1: {found.printed:.0f} (eq. 13), {found.sharp:.0f} (eq. 14)",
        f"the bound of {found.rules} linear rules holds in 95 % of draws or more: {'yes' if held else 'no'}",
        f"more is lost on real images than on fresh synthetic ones: {'yes' if missing > 0 else 'not shown'}",
        f"R3: {theory_rules.r3(found).verdict}",
    ]


def _said_of_settings(found: Printed) -> list[str]:
    return [
        f"{found.compared} settings: {found.wrong} printed wrongly, {found.missing} missing, "
        f"{found.otherwise} released otherwise",
        f"R9: {theory_rules.r9(found).verdict}",
    ]


def _said_of_bound(found: Bound) -> list[str]:
    below = metrics.mean_interval(found.gaps[-1])[1] < theory_rules.EQUAL
    return [
        f"with the exact denoiser, within {theory_rules.EQUAL} nats of -log p at T = {found.levels[-1]}: "
        f"{'yes' if below else 'not shown'}",
        f"networks: above -log p of their own chain: {'yes' if bool((found.slack > 0).all()) else 'not of each'}",
        f"R13: {theory_rules.r13(found).verdict}",
    ]


SENTENCES: dict[str, Callable[[Any], list[str]]] = {
    "kernel": _said_of_kernel,
    "gap": _said_of_gap,
    "settings": _said_of_settings,
    "bound": _said_of_bound,
}
"""By group, what tells its sentences from its results."""
