"""SIGKILL at a random moment: the job is started again, and must end in the same bits without doing anything twice."""

import functools
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import jobs, process
from faults.cases import Found, Kind, one, scratch, sentence
from faults.process import Ended, Process, alone

POOL = ("all", "leader", "worker")  # who is killed of a study with worker processes

Job = Callable[[Path], dict[str, Any]]


@functools.cache
def reference(job: Job) -> tuple[str, float]:
    """The digest of a job that nothing disturbs, and its seconds."""
    jobs.warm()
    with scratch() as folder:
        started = time.monotonic()
        ended = alone(job, Path(folder))
        if ended.how != "done":
            raise RuntimeError(f"{job.__name__} does not run undisturbed: {ended.told}")
        return ended.told["digest"], time.monotonic() - started


def undone(before: tuple[dict, int], folder: Path, ended: Ended) -> str:
    """What had been finished before and was done again, in words; an empty string if nothing."""
    files, steps = before
    now = jobs.kept(folder)
    if lost := [name for name, stamp in files.items() if now.get(name) != stamp]:
        return f"{len(lost)} finished files were gone or made again, such as {lost[0]}"
    first = ended.told["first"]
    again = first is not None and first < steps
    return f"step {first} was taken again, where the checkpoint had {steps}" if again else ""


def state(folder: Path) -> tuple[dict, int]:
    """What is finished in a folder."""
    return jobs.kept(folder), jobs.steps_of(folder)


def judged(job: Job, before: tuple[dict, int], folder: Path, ended: Ended, kills: int) -> Found:
    """The outcome of a job that was started again after what disturbed it."""
    if ended.how != "done":
        return one("wrong", f"{job.__name__}: {ended.how}: {ended.told}", kills)
    if ended.told["digest"] != reference(job)[0]:
        return one("wrong", f"{job.__name__}: other bits than an undisturbed run", kills)
    again = undone(before, folder, ended)
    return one("lost", f"{job.__name__}: {again}", kills) if again else one("recovered", kills=kills)


def killed(job: Job, seed: int) -> Found:
    """One to three kills at random moments, one after the other, and a run to the end."""
    chance = random.Random(f"{job.__name__} {seed}")
    _, length = reference(job)
    with scratch() as place:
        folder, kills = Path(place), 0
        for _ in range(1 + seed % 3):
            ended, span = Ended("done"), length
            while ended.how != "killed":
                before = state(folder)
                ended = alone(job, folder, kill_after=chance.uniform(0, span))
                if ended.how in ("failed", "hung", "refused"):
                    return one("wrong", f"{job.__name__}: {ended.how} after {kills} kills: {ended.told}", kills)
                if ended.how == "done":  # it was faster than the moment: from the start, and a shorter time
                    shutil.rmtree(folder)
                    folder.mkdir()
                    span *= 0.7
                elif now := undone(before, folder, Ended("", {"first": None})):
                    return one("lost", f"{job.__name__}: {now}", kills)
            kills += 1
        before = state(folder)
        return judged(job, before, folder, alone(job, folder), kills)


def two_runs(seed: int) -> Found:
    """Two runs in one folder at once; one or both are killed, and a third must find everything right."""
    job = (jobs.sampling, jobs.scoring)[seed % 2]
    chance = random.Random(f"two {seed}")
    with scratch() as place:
        folder, kills = Path(place), 0
        victim, other = Process(job, folder), Process(job, folder)
        moment = chance.uniform(0, 1.3 * reference(job)[1])
        kills += victim.end(moment).how == "killed"
        both = seed % 4 > 1
        ended = other.end(chance.uniform(moment, 2.5 * reference(job)[1]) if both else None)
        kills += ended.how == "killed"
        if ended.how not in ("done", "killed"):
            return one("wrong", f"{job.__name__}: beside a run that was killed: {ended.how}: {ended.told}", kills)
        if ended.how == "done" and ended.told["digest"] != reference(job)[0]:
            return one("wrong", f"{job.__name__}: other bits beside a run that was killed", kills)
        before = state(folder)
        return judged(job, before, folder, alone(job, folder), kills)


def pool(seed: int) -> Found:
    """A study with two workers: all of it is killed, or the process that leads, or one worker, as for want of memory.

    A leader's workers outlive it for a while, beside the run that goes on.
    """
    job, chance = jobs.pooled, random.Random(f"pool {seed}")
    _, length = reference(job)
    whom = POOL[seed % len(POOL)]

    def victims(pid: int) -> list[int]:
        hands = process.workers(pid)
        return {"all": [pid, *hands], "leader": [pid], "worker": [chance.choice(hands)] if hands else []}[whom]

    with scratch() as place:
        folder, span, first = Path(place), length, None
        while first is None:
            first = Process(job, folder)
            ended = first.end(chance.uniform(0.2, 1) * span, victims)
            if not first.struck:  # it was faster, or had no worker yet
                first.sweep()
                shutil.rmtree(folder)
                folder.mkdir()
                first, span = None, 0.8 * span if ended.how == "done" else span
        if ended.how not in ("killed", "refused", "done") or (ended.how == "refused" and not sentence(ended.told)):
            return one("wrong", f"{whom} of a pool killed: {ended.how}: {ended.told}", first.struck)
        before, second = state(folder), Process(job, folder)
        found = judged(job, before, folder, second.end(), 1)
        for some in (first, second):
            some.sweep()
        return found


def study(seed: int) -> Found:
    """Every fifteenth with the networks of G5, which take most of its time."""
    return killed(jobs.whole_study if seed % 15 == 14 else jobs.studying, seed)


KINDS = {
    "kill, training": Kind(40, functools.partial(killed, jobs.training), 2),
    "kill, sampling into shards": Kind(40, functools.partial(killed, jobs.sampling), 2),
    "kill, scoring": Kind(40, functools.partial(killed, jobs.scoring), 2),
    "kill, a chapter's study": Kind(20, study, 1),
    "kill, a study with workers": Kind(20, pool, 1),
    "kill, an audit": Kind(24, functools.partial(killed, jobs.auditing), 1),
    "kill, two runs on one cache": Kind(40, two_runs, 2),
}
