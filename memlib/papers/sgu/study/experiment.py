"""The experiment: what depends on what, and what can run at the same time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from memlib.errors import Refused
from memlib.papers.sgu.study import arms, images, tasks, toy
from memlib.papers.sgu.study.images import Call, Networks
from memlib.papers.sgu.study.results import Results, Toy
from memlib.papers.sgu.study.settings import Settings
from memlib.run import Run

GROUPS: dict[str, tuple[str, ...]] = {
    "samples": ("U1", "U1a", "U1b", "U3", "U8"),
    "likelihoods": ("U2",),
    "inpainting": ("U4",),
    "reconstruction": ("U5", "U5a"),
    "tuning": ("U6",),
    "toy": ("U7", "U7a"),
}


def run(settings: Settings, run: Run, groups: Sequence[str] = ()) -> Results:
    """Run the experiment, or the groups of it that are named.

    Three rounds of independent calls, each shared between processes: the judges, training (the toy's seeds and all
    networks from scratch), then measuring (and fine-tuning, which starts from the standard networks).

    Raises:
        Refused: before anything is trained, for settings, labels or sources that cannot work.
    """
    check(settings, groups)
    wanted = [name for name in GROUPS if name in (groups or GROUPS)]
    with _default_dtype(settings.dtype):
        return _run(settings, run, wanted)


def call(function: Callable[..., Any], *inputs: Any) -> Any:
    """`function(*inputs)`: what `Run.each` hands to its processes, so that different functions share one round."""
    return function(*inputs)


def first_seed(settings: Settings, run: Run) -> int:
    """The first of the seeds of networks and draws; the two halves share none."""
    return run.seed + (0 if settings.half == "report" else 1000)


def check(settings: Settings, groups: Sequence[str] = ()) -> None:
    """Refuse groups that do not exist and settings that contradict each other."""
    if wrong := [name for name in groups if name not in GROUPS]:
        raise Refused(f"there is no group {wrong[0]!r}: choose among {', '.join(GROUPS)}")
    for name in ("alpha_obtuse", "alpha_orthogonal"):
        if len(getattr(settings, name)) != len(arms.PROCESSES):
            raise Refused(f"{name} is {list(getattr(settings, name))}: give one number each for VE, VP and DDPM")
    for name in ("processes", "forget", "tune_steps"):
        if not getattr(settings, name):
            raise Refused(f"{name} is empty: give at least one")


def check_sources(settings: Settings, run: Run) -> None:
    """Refuse images and labels that this study cannot work with, as `run` would."""
    check(settings)
    tasks.load(settings, run)


def _run(settings: Settings, run: Run, wanted: Sequence[str]) -> Results:
    measured = [name for name in wanted if name != "toy"]
    parts = tasks.load(settings, run) if measured else {}
    asked = {(name, of): one for name in parts for of, one in tasks.judge_calls(parts[name], settings, run).items()}
    judges = _each(run, "judge", asked)
    known = {}
    for name, one in parts.items():
        known[name] = tasks.prepare(one, {of: judges[task, of] for task, of in judges if task == name}, settings)
    if "far" in known:  # whose retained images hold little of what its own judge would have to know
        known["far"] = known["far"].judged_by(known["main"])
    first = first_seed(settings, run)
    seeds = range(first, first + settings.n_seeds)
    plans = {key: arms.plan(key[0], *key[2:], settings) for key in images.networks_of(settings, measured, seeds)}
    training: dict[Any, Call] = _toy_calls(settings, first) if "toy" in wanted else {}
    for key, plan in plans.items():
        task = known[key[1]]
        training[key] = (arms.trained, run, plan, task.z, task.forget, task.sigma_star)
    made = _each(run, "trained", training)
    nets = {key: arms.loaded(known[key[1]].z, plan, made[key]) for key, plan in plans.items()}
    networks = Networks(settings, run, known, nets, seeds)
    measuring = {key: one for name in measured for key, one in images.GROUPS[name].calls(networks).items()}
    found = _each(run, "measured", measuring)
    return Results(
        description="\n".join(one.describe() for one in parts.values()),
        sigma_star={name: (task.sigma_star, task.levels, task.posterior) for name, task in known.items()} or None,
        toy=_toy(made, settings, first) if "toy" in wanted else None,
        **{name: images.GROUPS[name].gathered(networks, found) for name in measured},
    )


def _toy_calls(settings: Settings, first: int) -> dict[Any, Call]:
    seeds = range(first, first + settings.toy_seeds)
    calls: dict[Any, Call] = {("toy", seed): (toy.trained, seed, settings.toy_steps, first) for seed in seeds}
    return calls | {("form", name): (toy.closed_form, name, first) for name in (*toy.FORMS, "standard", "unseen")}


def _toy(made: Mapping[Any, Any], settings: Settings, first: int) -> Toy:
    forms = {key[1]: value for key, value in made.items() if key[0] == "form"}
    return toy.gathered([made["toy", first + i] for i in range(settings.toy_seeds)], forms, first)


def _each(run: Run, name: str, calls: Mapping[Any, Call]) -> dict[Any, Any]:
    """The result of every call, by its key."""
    return dict(zip(calls, run.each(name, call, calls.values()), strict=True))


@contextmanager
def _default_dtype(name: str) -> Iterator[None]:
    """Random generators draw in this dtype, whatever the caller's is."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, name))
    try:
        yield
    finally:
        torch.set_default_dtype(before)
