"""The numbers behind the claims, as tables: rows of strings, the first row names the columns."""

import torch
from torch import Tensor

from memlib import metrics
from memlib.papers.loop.study.results import ATTACKS, Frontier, Loop, Practices, Results, by_pair
from memlib.papers.loop.study.rules import guided, less_to_extract

Rows = list[list[str]]
WHAT = {"images": "members by chance", "label": "members of one label"}


def tables(results: Results) -> dict[str, Rows]:
    """The tables of the groups that were run, by title."""
    found: dict[str, Rows] = {}
    for kind, loop in (results.loop or {}).items():
        word, *source = kind.split(", ")
        named = ", ".join((WHAT[word], *source))
        found[f"Before and after: {named}"] = _arms(loop)
        if guided({kind: loop}):
            found[f"Guided samples: {named}"] = _steered(loop)
        found[f"An adversary who knows: {named}"] = _adversary(loop)
    if results.frontier is not None:
        found["Learning rates, each model stopped at its best"] = _stopped(results.frontier)
        found["Learning rates, on the way"] = _curves(results.frontier)
    if results.practices is not None:
        found["Ways to train, each model stopped at its best"] = _practices(results.practices)
    return found


def told(values: Tensor, digits: int = 3) -> str:
    """The mean of (T,) values with its interval over pairs."""
    low, high = metrics.mean_interval(by_pair(values), bounds=(0, 1))
    mean = float(torch.as_tensor(values).double().mean())
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def found_at(loop: Loop, hits: Tensor) -> Tensor:
    """The forgotten images among `hits` (T, N), as a fraction, (T,)."""
    return (hits & loop.gone).sum(1).double() / loop.gone.sum(1)


def _arms(loop: Loop) -> Rows:
    rows = [
        ["model", "samples that copy a forgotten image", "forgotten images copied", "found by LiRA at 1 %", "AUC",
         "precision", "Frechet distance"],
    ]  # fmt: skip
    each = loop.gone.sum(1)
    for name, arm in loop.arms.items():
        rows.append(
            [
                name,
                told(arm.share(loop.gone), 4),
                told(arm.distinct(loop.gone) / each, 2),
                told(found_at(loop, arm.hits), 2),
                told(arm.area, 2),
                told(arm.precision, 2),
                f"{float(arm.distance.mean()):.2f}",
            ]
        )
    return rows


def _steered(loop: Loop) -> Rows:
    heads = {"blind": "not guided", "own": "labels of its own samples", "aimed": "labels of what was forgotten"}
    rows = [["model", *(heads[name] for name in ATTACKS), *(f"distinct: {heads[name]}" for name in ATTACKS)]]
    each = loop.gone.sum(1)
    for name, arm in loop.arms.items():
        shares = [told(arm.share_steered(attack, loop.gone), 4) for attack in ATTACKS]
        rows.append([name, *shares, *(told(arm.distinct_steered(attack, loop.gone) / each, 2) for attack in ATTACKS)])
    return rows


def _adversary(loop: Loop) -> Rows:
    rows = [
        ["model", "copies of the others", "after relearning some", "restored from a noisy view",
         "AUC of the change of the loss"],
    ]  # fmt: skip
    for name, arm in loop.arms.items():
        change = "" if name == "original" else told(arm.revealed, 2)
        rows.append([name, told(arm.share_before(), 4), told(arm.share_relearned(), 4), told(arm.restored, 2), change])
    return rows


def _stopped(found: Frontier) -> Rows:
    rows = [["rate", "precision", "samples that are copies", "stopped at step, median"]]
    for rate in sorted(found.share):
        good, share = found.stopped(rate)
        steps = torch.tensor(found.looks)[found.chosen[rate].argmax(0)]
        rows.append([f"{rate:g}", told(good, 2), told(share, 3), f"{int(steps.median())}"])
    return rows


def _practices(found: Practices) -> Rows:
    """Differences are from the usual training, with intervals of 1 - .05/m for m practices."""
    rows = [["training", "precision", "samples that are copies", "more copies than usual", "more precision than usual"]]
    usual, level = found.curves["usual"].stopped(), 1 - 0.05 / max(1, len(found.curves) - 1)
    for name, curve in found.curves.items():
        good, share = curve.stopped()
        compared = less_to_extract(usual, (good, share), level)
        ends = ["", ""] if name == "usual" else [f"[{a:+.3f}, {b:+.3f}]" for a, b in compared[1:]]
        rows.append([name, told(good, 2), told(share, 3), *ends])
    return rows


def _curves(found: Frontier) -> Rows:
    rows = [["rate", "steps", "precision", "samples that are copies"]]
    for rate in sorted(found.share):
        for step, good, share in zip(found.looks, found.quality[rate], found.share[rate], strict=True):
            rows.append([f"{rate:g}", str(step), told(good, 2), told(share, 3)])
    return rows
