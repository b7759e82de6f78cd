"""The tables behind the claims, as rows of text, and what a kept record says in three sentences."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from memlib import metrics
from memlib.papers.sgu.study import rules
from memlib.papers.sgu.study.results import (
    SIDES,
    Inpainting,
    Judged,
    Likelihoods,
    Reconstruction,
    Results,
    Samples,
    Toy,
    Tuning,
)

Rows = list[list[str]]

SAMPLES = "Samples"
_ARMS = {
    "standard": "standard",
    "unseen": "retrained (unseen)",
    "orthogonal": "orthogonal",
    "obtuse": "obtuse",
    "obtuse, w=1": "obtuse as printed",
}


def tables(results: Results) -> dict[str, Rows]:
    """Title -> rows, for the groups that were run; the first row names the columns."""
    made: dict[str, Rows] = {}
    if results.toy:
        made |= {"The toy in closed form": _exact(results.toy), "The toy, trained": _trained(results.toy)}
        made["Distance to the closed forms"] = _distances(results.toy)
    if results.samples:
        assert results.sigma_star is not None  # found with the tasks, before any group is run
        made |= {"The judges": _judges(results.samples, results.sigma_star), SAMPLES: _samples(results.samples)}
    if results.likelihoods:
        made["Likelihoods"] = _likelihoods(results.likelihoods)
        made["What an auditor can tell"] = _auditor(results.likelihoods)
    if results.inpainting:
        made["Inpainting"] = _inpainting(results.inpainting)
    if results.reconstruction:
        made["Reconstruction"] = _reconstruction(results.reconstruction)
    if results.tuning:
        made["Fine-tuning"] = _tuning(results.tuning)
    return made


def headline(kept: Mapping[str, Any]) -> tuple[list[str], dict[str, tuple[float, tuple[float, float]]]]:
    """A kept run in three sentences, and its unlearning ratios in percent with their intervals, by arm.

    `kept` is what `chapters.kept` returns. A record with a table of samples has intervals of its own; an older one has
    none, and its counts give binomial ones, which leave out how networks differ.
    """
    claims = kept["claims"]
    u1, u2, u7 = (claims[name] for name in ("U1", "U2", "U7"))
    ratio, rise, turn = u1["figure"], u2["figure"], u7["figure"]
    low, high = u7["interval"]
    sentences = [
        f"The retrained model puts forgotten digits into {ratio['unseen']:g} % of its samples, the orthogonal loss "
        f"into {ratio['orthogonal']:g} %, the obtuse loss into {ratio['obtuse']:g} % and a model that saw everything "
        f"into {ratio['standard']:g} % (U1: {u1['verdict']}).",
        f"Forgotten digits become unlikely by {rise['orthogonal, D_f']:g} (orthogonal) and {rise['obtuse, D_f']:g} "
        f"(obtuse) bits per dimension, and by {rise['unseen, D_f']:g} after retraining (U2: {u2['verdict']}).",
        f"In a toy the obtuse loss turns the score beyond retraining (difference of cosines {low:g} to {high:g}), "
        f"and retraining turns it as well, from {turn['standard']:g} to {turn['unseen']:g} (U7: {u7['verdict']}).",
    ]
    found = {}
    for arm, value in ratio.items():
        found[_ARMS.get(arm, arm)] = (value, _kept_interval(kept, arm, value, u1["n"]))
    return sentences, found


def _kept_interval(kept: Mapping[str, Any], arm: str, percent: float, n: int) -> tuple[float, float]:
    for task, _, name, _, ends, *_ in kept.get("tables", {}).get(SAMPLES, [])[1:]:
        if (task, name) == ("classes", arm):
            low, high = ends.strip("[]").split(",")
            return float(low), float(high)
    low, high = metrics.Count(round(percent * n / 100), n).interval()
    return 100 * low, 100 * high


def _exact(toy: Toy) -> Rows:
    rows = [["closed form", "α", "NLL D_g", "NLL D_f", "in the middle", "astray"]]
    for name, values in toy.exact.items():
        for alpha, (g, f, middle, astray) in zip(toy.alphas if len(values) > 1 else (1.0,), values, strict=True):
            rows.append([name, f"{alpha:.2f}", f"{g:.2f}", f"{f:.1f}", f"{middle:.2f}", f"{astray:.2f}"])
    return rows


def _trained(toy: Toy) -> Rows:
    rows = [["arm", "NLL D_g", "NLL D_f", "in the middle", "95 % interval", "astray"]]
    for i, arm in enumerate(toy.arms):
        values = toy.trained[:, i]
        (low, high), (g, f, middle, astray) = metrics.mean_interval(values[:, 2], bounds=(0, 1)), values.mean(0)
        ends = f"[{low:.3f}, {high:.3f}]"
        rows.append([arm, f"{g:.2f}", f"{f:.2f}", f"{middle:.3f}", ends, f"{astray:.3f}"])
    return rows


def _distances(toy: Toy) -> Rows:
    rows = [["σ", *[f"{arm} (adds)" for arm in toy.off]]]
    for i, sigma in enumerate(toy.gap_levels):
        cells = [f"{toy.off[arm][:, i].mean():.2f} ({toy.adds[arm][i]:.2f})" for arm in toy.off]
        rows.append([f"{sigma:g}", *cells])
    return rows


def _judges(samples: Samples, sigma_star: dict[str, tuple[float, Tensor, Tensor]]) -> Rows:
    rows = [["task", "right, %", "found in retained images, %", "in forgotten images, %", "σ*"]]
    for task, rates in samples.judge.items():
        rows.append([task, *[f"{100 * rate:.1f}" for rate in rates], f"{sigma_star[task][0]:.1f}"])
    return rows


def _samples(samples: Samples) -> Rows:
    rows = [["task", "process", "arm", "UR, %", "95 % interval", "Frechet", "prec.", "rec."]]
    for (task, process, arm), judged in samples.judged.items():
        percent = 100 * rules.rate(samples, task, process, arm)
        low, high = (100 * end for end in rules.ratio_interval(samples, task, process, arm))
        ends = f"[{low:.1f}, {high:.1f}]"
        rows.append([task, process, arm, f"{percent:.1f}", ends, *_quality(judged)])
    return rows


def _quality(judged: Judged) -> list[str]:
    means = judged.frechet.mean(), judged.precision.mean(), judged.recall.mean()
    return [f"{means[0]:.1f}", f"{means[1]:.2f}", f"{means[2]:.2f}"]


def _likelihoods(likelihoods: Likelihoods) -> Rows:
    rows = [["process", "arm", "D_g, bits per dim.", "D_f, bits per dim."]]
    for process in likelihoods.processes:
        for arm in likelihoods.arms:
            cells = [_with_error(likelihoods.bits[process, arm, side].mean(0)) for side in SIDES]
            rows.append([process, arm, *cells])
    return rows


def _with_error(values: Tensor) -> str:
    return f"{values.mean():.2f} ± {values.std() / len(values) ** 0.5:.2f}"


def _auditor(likelihoods: Likelihoods) -> Rows:
    questions = {
        "forgotten or retained": rules.hole(likelihoods),
        "trained on or not": likelihoods.member,
    }
    rows = [["question", "arm", "AUC", "95 % interval"]]
    for question, areas in questions.items():
        for arm, (area, (low, high)) in areas.items():
            rows.append([question, arm, f"{area:.2f}", f"[{low:.2f}, {high:.2f}]"])
    return rows


def _inpainting(inpainting: Inpainting) -> Rows:
    rows = [["task", "hidden", "arm", "class kept D_g, %", "D_f, %", "distance D_g", "D_f"]]
    for task in dict.fromkeys(key[0] for key in inpainting.answers):
        for mask in inpainting.masks:
            for arm in inpainting.arms:
                pair = [inpainting.answers[task, mask, arm, side] for side in SIDES]
                kept = [f"{100 * one.same.mean():.1f}" for one in pair]
                rows.append([task, mask, arm, *kept, *[f"{one.distance.mean():.2f}" for one in pair]])
    return rows


def _reconstruction(found: Reconstruction) -> Rows:
    rows = [["t", "σ", "side", *[f"{arm}, %" for arm in found.arms]]]
    for time, sigma in zip(found.times, found.sigmas, strict=True):
        for side in SIDES:
            cells = [f"{100 * found.answers[time, arm, side].same.mean():.0f}" for arm in found.arms]
            rows.append([f"{time:g}", f"{sigma:.2f}", side, *cells])
    return rows


def _tuning(tuning: Tuning) -> Rows:
    rows = [["process", "arm", "steps", "UR, %", "95 % interval", "Frechet", "prec.", "rec."]]
    for (process, arm, steps), judged in tuning.tuned.items():
        rates = judged.found.double() / tuning.n
        if len(rates) > 1:
            low, high = metrics.mean_interval(rates, bounds=(0, 1))
        else:
            low, high = metrics.Count(int(judged.found), tuning.n).interval()
        ends = f"[{100 * low:.1f}, {100 * high:.1f}]"
        rows.append([process, arm, str(steps), f"{100 * rates.mean():.1f}", ends, *_quality(judged)])
    return rows
