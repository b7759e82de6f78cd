"""The same comparison at equal seconds: what samples cost on this machine, and what the plain sampler buys for it."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from memlib import metrics, sample
from memlib.papers.side import students
from memlib.papers.side.attack import sweep
from memlib.papers.side.study.arms import Bench, classifier, spread_of, student, surrogate
from memlib.papers.side.study.model import unguided
from memlib.papers.side.study.results import Seconds
from memlib.run import Run

TIMED = ("OL-TD", "CL-TD")
STARTS = 250  # samples of a timing


def measure_seconds(bench: Bench, weight: float, hits: dict[str, Tensor], run: Run) -> Seconds:
    """Time samples of each kind, now and alone on this machine; `hits` (N,) by arm are kept with the times."""
    target, few = bench.target, torch.arange(STARTS)
    like = target.like
    x = sample.start(target.sigmas, few, like.shape[1:], dtype=like.dtype, device=like.device)
    plain = min(_seconds(run, unguided, target, few) for _ in range(2)) / STARTS
    before, each = {}, {}
    for arm in TIMED:
        given = surrogate(arm, bench, run)
        classes, net = given.targets.shape[1], student(given, bench, run)
        wanted = (target.denoiser, net, x, few % classes, [weight], target.sigmas)
        each[arm] = min(_seconds(run, sweep, *wanted) for _ in range(2)) / STARTS
        fresh = classifier(classes, True, spread_of(bench), bench.recipe.residual, bench.synthetic[:0])
        step = _seconds(run, students.distil, fresh, given, 20) / 20
        # Images to learn from, labels for them (a teacher is trained, or clusters are found), and a student.
        trainings = 2 if arm == "OL-TD" else 1
        before[arm] = len(bench.synthetic) * plain + bench.recipe.steps * step * trainings
    return Seconds(plain, before, each, len(bench.world.members), {name: one.cpu() for name, one in hits.items()})


def _seconds(run: Run, work: Callable[..., Any], *arguments: Any) -> float:
    started = perf_counter()
    work(*arguments)
    if run.device.type != "cpu":
        torch.accelerator.synchronize(run.device)
    return perf_counter() - started


def bought(found: Seconds, times: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Distinct members copied after each of `times` (T,) in seconds, by arm: (T,), extrapolated where more samples
    would be needed than there are, and (T,) bool, whether it was counted."""
    curves = {}
    for arm, hits in found.hits.items():
        start, each = found.before.get(arm, 0.0), found.each.get(arm, found.plain)
        n = ((times - start) / each).clamp_min(0).long()
        counts = torch.bincount(hits[hits >= 0], minlength=found.members)
        curves[arm] = metrics.extrapolate_unique(counts, len(hits), n), n <= len(hits)
    return curves


def equal_seconds(found: Seconds) -> list[list[str]]:
    """A table: what each attack made of its seconds, and what the plain sampler would have made of them."""
    plainly = found.hits["Random"]
    counts = torch.bincount(plainly[plainly >= 0], minlength=found.members)
    rows = [["arm", "seconds", "copies", "distinct", "plain samples", "copies", "distinct", "of its own"]]
    for arm in found.before:
        hits = found.hits[arm]
        spent = found.before[arm] + len(hits) * found.each[arm]
        afford = torch.tensor([int(spent / found.plain)])
        expected = float(metrics.extrapolate_unique(counts, len(plainly), afford))
        copies = float(afford) * float((plainly >= 0).double().mean())
        own = len(set(hits[hits >= 0].tolist()) - set(plainly[plainly >= 0].tolist()))
        made = [f"{int((hits >= 0).sum())}", f"{metrics.ums(hits, len(hits)).k}"]
        rows.append([arm, f"{spent:.1f}", *made, f"{int(afford)}", f"{copies:.0f}", f"{expected:.0f}", f"{own}"])
    return rows
