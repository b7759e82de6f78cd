"""The same comparison at equal seconds: what samples cost on this machine, and what the plain sampler buys for it."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from memlib import metrics, sample
from memlib.papers.side import students
from memlib.papers.side.attack import sweep
from memlib.papers.side.study.arms import ARMS, Bench, classifier, guide, spread_of, surrogate
from memlib.papers.side.study.judge import Judge
from memlib.papers.side.study.model import ROWS, unguided
from memlib.papers.side.study.results import Seconds
from memlib.papers.side.study.world import coders
from memlib.run import Run

TIMED = ("CL-TD own", "OL-TD")
STARTS = 250  # samples of a timing
MOST = 50_000  # plain samples that are drawn at the most


def measure_seconds(
    bench: Bench, judge: Judge, weights: dict[str, float], hits: dict[str, Tensor], known: Tensor, run: Run
) -> Seconds:
    """Time samples of each kind, now and alone on this machine, and draw as many plain ones as the seconds of the
    dearest arm buy; `hits` (N,) by arm are those of the attacks, `weights` theirs. `known` (M,) are the members copied
    by the first M plain samples, which were drawn before; then come the generated images, then new samples."""
    target, few, world = bench.target, torch.arange(STARTS), bench.world
    like, decode = target.like, coders(world)[1]
    x = sample.start(target.sigmas, few, like.shape[1:], dtype=like.dtype, device=like.device)
    plain = min(_seconds(run, unguided, target, few) for _ in range(2)) / STARTS
    before, each = {}, {}
    for arm in TIMED:
        given = surrogate(ARMS[arm].surrogate, bench, run)
        classes, net = given.targets.shape[1], guide(arm, given, bench, run)
        wanted = (target.denoiser, net, x, few % classes, [weights[arm]], target.sigmas)
        each[arm] = min(_seconds(run, sweep, *wanted) for _ in range(2)) / STARTS
        each[arm] += plain if ARMS[arm].draw == "own" else 0.0  # the unguided pass that gives a start its label
        fresh = classifier(classes, True, spread_of(bench), bench.recipe.residual, bench.synthetic[:0])
        step = _seconds(run, students.distil, fresh, given, 20) / 20
        # Images to learn from, labels for them (a teacher is trained, or clusters are found), and a student.
        trainings = 2 if arm == "OL-TD" else 1
        before[arm] = len(bench.synthetic) * plain + bench.recipe.steps * step * trainings
    spent = max(before[arm] + len(hits[arm]) * each[arm] for arm in TIMED)
    n = min(MOST, max(STARTS, int(spent / plain)))
    plainly = known[:n]
    if n > len(plainly):  # the generated images are plain samples too
        generated = (decode(part) for part in bench.synthetic[: n - len(plainly)].split(ROWS))
        plainly = torch.cat([plainly, judge.compare(generated).hits(judge.edges["high"])])
    if n > len(plainly):
        drawn = (decode(unguided(target, seeds)) for seeds in torch.arange(len(plainly), n).split(ROWS))
        plainly = torch.cat([plainly, judge.compare(drawn).hits(judge.edges["high"])])
    found = {"Random": plainly.int()} | hits
    return Seconds(plain, before, each, len(world.members), {name: one.cpu() for name, one in found.items()})


def _seconds(run: Run, work: Callable[..., Any], *arguments: Any) -> float:
    started = perf_counter()
    work(*arguments)
    torch.zeros((), device=run.device).item()  # a number comes back when all that was asked before is done
    return perf_counter() - started


def bought(found: Seconds, times: Tensor) -> dict[str, Tensor]:
    """Distinct members copied after each of `times` (T,) in seconds, by arm, (T,), all counted; NaN where more samples
    would be needed than were drawn."""
    curves = {}
    for arm, hits in found.hits.items():
        start, each = found.before.get(arm, 0.0), found.each.get(arm, found.plain)
        numbers = ((times - start) / each).clamp_min(0).long().tolist()
        counted = [float(metrics.ums(hits[:n], len(hits)).k) if n <= len(hits) else torch.nan for n in numbers]
        curves[arm] = torch.tensor(counted)
    return curves


def equal_seconds(found: Seconds) -> list[list[str]]:
    """A table: what each attack made of its seconds, and what the plain sampler made of as many."""
    rows = [["arm", "seconds", "samples", "copies", "distinct", "plain samples", "copies", "distinct", "of its own"]]
    for arm in found.before:
        hits = found.hits[arm].long()
        spent = found.before[arm] + len(hits) * found.each[arm]
        plainly = found.hits["Random"][: int(spent / found.plain)]
        own = len(set(hits[hits >= 0].tolist()) - set(plainly[plainly >= 0].tolist()))
        counts = [len(hits), int((hits >= 0).sum()), metrics.ums(hits, len(hits)).k]
        counts += [len(plainly), int((plainly >= 0).sum()), metrics.ums(plainly, len(plainly)).k, own]
        rows.append([arm, f"{spent:.1f}", *map(str, counts)])
    return rows
