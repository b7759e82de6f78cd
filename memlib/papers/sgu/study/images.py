"""The groups of image claims: for each, the calls that measure it and how their results are put together."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from memlib import losses
from memlib.papers.sgu.study import arms, measures
from memlib.papers.sgu.study.results import SIDES, Inpainting, Judged, Likelihoods, Reconstruction, Samples, Tuning
from memlib.papers.sgu.study.settings import Settings
from memlib.papers.sgu.study.tasks import Task
from memlib.run import Run

Key = tuple[str, str, str, int]
"""A network: arm, task, process, seed."""

Call = tuple[Any, ...]
"""A function of a module, and its inputs."""

_EXACT = 1024  # coordinates up to which an exact trace is affordable
_DRAWN = ("digits", "faces", "mnist")  # what is made of any other source may be a photograph and is not kept
_RUNAWAY = {"obtuse": losses.obtuse, "bounded": losses.obtuse_bounded}


@dataclass(frozen=True)
class Networks:
    """The networks from scratch, and what they were trained on."""

    settings: Settings
    run: Run
    tasks: dict[str, Task]
    nets: dict[Key, nn.Module]
    seeds: range

    @property
    def process(self) -> str:
        """The process that decides the image claims."""
        return self.settings.processes[0]

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms from scratch."""
        return arms.arms_of(self.settings)

    def keys(self, *processes: str, task: str = "classes") -> list[Key]:
        """The networks of a task on these processes, by process, arm and seed."""
        return [(arm, task, process, seed) for process in processes for arm in self.arms for seed in self.seeds]


def networks_of(settings: Settings, groups: Sequence[str], seeds: range) -> list[Key]:
    """The networks from scratch that these groups need."""
    every: dict[Key, None] = {}
    for group in groups:
        names = ("standard", "unseen") if group == "tuning" else arms.arms_of(settings)
        processes = settings.processes if group in ("samples", "tuning") else settings.processes[:1]
        if group == "likelihoods":
            processes = tuple(dict.fromkeys((*processes, *_smooth(settings))))
        every |= {(arm, "classes", process, s): None for process in processes for arm in names for s in seeds}
        if settings.attribute and group in ("samples", "inpainting"):
            every |= {(arm, "attribute", settings.processes[0], s): None for arm in names for s in seeds}
    return list(every)


# Samples: U1 and U3.


def _sample_calls(networks: Networks) -> dict[Any, Call]:
    keys = networks.keys(*networks.settings.processes)
    if "attribute" in networks.tasks:
        keys += networks.keys(networks.process, task="attribute")
    return {("judged", key): _judging(networks, key) for key in keys}


def _judging(networks: Networks, key: Key) -> Call:
    _, task, process, seed = key
    settings = networks.settings
    sizes = (settings.n_levels, settings.n_samples)
    return (measures.judged, networks.tasks[task], process, *sizes, seed, networks.nets[key])


def _samples(networks: Networks, found: Mapping[Any, Any]) -> Samples:
    settings, seeds = networks.settings, networks.seeds
    cells = dict.fromkeys(key[1][:3] for key in _sample_calls(networks))
    shown = [(arm, task) for arm, task, process in cells if process == networks.process and _drawn(networks, task)]
    return Samples(
        source=f"{settings.data} {list(settings.forget)}",
        processes=settings.processes,
        arms=networks.arms,
        n=settings.n_samples,
        judged={
            (task, process, arm): _stacked(found["judged", (arm, task, process, s)] for s in seeds)
            for arm, task, process in cells
        },
        judge={name: _errors(task) for name, task in networks.tasks.items()},
        images={(task, arm): found["judged", (arm, task, networks.process, seeds[0])]["images"] for arm, task in shown},
    )


def _stacked(runs: Iterable[dict[str, Tensor]]) -> Judged:
    every = list(runs)
    return Judged(**{name: torch.stack([one[name] for one in every]) for name in Judged.__dataclass_fields__})


def _errors(task: Task) -> tuple[float, float, float]:
    """Accuracy of the judge on test images, and how often it finds content in real retained and forgotten ones."""
    right = (task.answers(task.features) == task.test_labels).double().mean()
    rates = [task.found(task.features[rows]).double().mean() for rows in (~task.test_forget, task.test_forget)]
    return float(right), float(rates[0]), float(rates[1])


def _drawn(networks: Networks, task: str) -> bool:
    source = networks.settings.attribute if task == "attribute" else networks.settings.data
    return source.partition(":")[0] in _DRAWN


# Likelihoods: U2, and what an auditor sees.


def _smooth(settings: Settings) -> tuple[str, ...]:
    """The processes that have a likelihood: there is no flow between the discrete levels of DDPM."""
    return tuple(name for name in settings.processes if name != "DDPM") or settings.processes[:1]


def _likelihood_calls(networks: Networks) -> dict[Any, Call]:
    task, smooth = networks.tasks["classes"], _smooth(networks.settings)
    retrained = networks.nets["unseen", "classes", smooth[0], networks.seeds[0]]
    checks: dict[Any, Call] = {}
    if task.z[0].numel() <= _EXACT:  # beyond, the exact trace costs more than all the rest
        checks = {("check", probes): (measures.bits, task, "D_g", retrained, 8, probes) for probes in (None, 4)}
    return checks | {
        ("bits", key, side): (measures.bits, task, side, networks.nets[key], networks.settings.n_likely)
        for key in networks.keys(*smooth)
        for side in SIDES
    }


def _likelihoods(networks: Networks, found: Mapping[Any, Any]) -> Likelihoods:
    smooth, task, seeds = _smooth(networks.settings), networks.tasks["classes"], networks.seeds
    nets = {arm: networks.nets[arm, "classes", networks.process, seeds[0]] for arm in networks.arms}
    checked = ("check", None) in found
    return Likelihoods(
        processes=smooth,
        arms=networks.arms,
        bits={
            (process, arm, side): torch.stack([found["bits", (arm, "classes", process, s), side] for s in seeds])
            for process in smooth
            for arm in networks.arms
            for side in SIDES
        },
        check=(float(found["check", None].mean()), float(found["check", 4].mean())) if checked else None,
        member={arm: measures.member_auc(task, net) for arm, net in nets.items()},
    )


# Inpainting and reconstruction: U4 and U5.


def _inpainting_calls(networks: Networks) -> dict[Any, Call]:
    """The first mask with every seed, the others with the first."""
    settings, planned = networks.settings, {}
    for mask in measures.MASKS:
        for key in (key for name in networks.tasks for key in networks.keys(networks.process, task=name)):
            if mask == measures.MASKS[0] or key[3] == networks.seeds[0]:
                sizes = (settings.n_levels, settings.n_fills, key[3], mask)
                planned["refilled", key, mask] = (
                    measures.refilled, networks.tasks[key[1]], key[2], *sizes, networks.nets[key],
                )  # fmt: skip
    return planned


def _inpainting(networks: Networks, found: Mapping[Any, Any]) -> Inpainting:
    answers, images = {}, {}
    for name, task in networks.tasks.items():
        if _drawn(networks, name):
            images[name, "original"] = task.test[task.test_forget][:12].cpu().half()
        for arm in networks.arms:
            keys = [(arm, name, networks.process, s) for s in networks.seeds]
            for mask in measures.MASKS:
                runs = [found["refilled", key, mask] for key in keys if ("refilled", key, mask) in found]
                answers |= {(name, mask, arm, side): measures.averaged(runs, side) for side in SIDES}
            if _drawn(networks, name):
                images[name, arm] = found["refilled", keys[0], measures.MASKS[0]]["images"]
    return Inpainting(networks.arms, measures.MASKS, answers, images)


def _reconstruction_calls(networks: Networks) -> dict[Any, Call]:
    task, settings = networks.tasks["classes"], networks.settings
    return {
        ("restored", key, time): (
            measures.restored, task, key[2], settings.n_levels, key[3], sigma, networks.nets[key],
        )
        for key in networks.keys(networks.process)
        for time, sigma in zip(measures.TIMES, measures.sigmas(), strict=True)
    }  # fmt: skip


def _reconstruction(networks: Networks, found: Mapping[Any, Any]) -> Reconstruction:
    answers = {}
    for arm in networks.arms:
        for time in measures.TIMES:
            runs = [found["restored", (arm, "classes", networks.process, s), time] for s in networks.seeds]
            answers |= {(time, arm, side): measures.averaged(runs, side) for side in SIDES}
    return Reconstruction(networks.arms, measures.TIMES, measures.sigmas(), answers)


# Fine-tuning: U6.


def _tuning_calls(networks: Networks) -> dict[Any, Call]:
    settings, task, seeds = networks.settings, networks.tasks["classes"], networks.seeds
    planned: dict[Any, Call] = {}
    for process in settings.processes:
        for s in seeds:
            origin = _weights(networks, process, s)
            for arm in arms.tuned_arms_of(settings):
                for steps in settings.tune_steps:
                    plan = arms.plan(arm, "classes", process, s, settings, steps)
                    sizes = (settings.n_levels, settings.n_samples)
                    planned["tuned", process, arm, steps, s] = (
                        measures.tuned,
                        networks.run,
                        task,
                        plan,
                        origin,
                        *sizes,
                    )
            for arm in ("standard", "unseen"):
                key = (arm, "classes", process, s)
                planned["judged", key] = _judging(networks, key)
    plan = replace(
        arms.plan("obtuse", "classes", networks.process, seeds[0], settings), alpha=0.05, steps=200, lr=settings.lr
    )
    origin = _weights(networks, networks.process, seeds[0])
    for name, loss in _RUNAWAY.items():
        planned["growth", name] = (arms.runaway, plan, loss, task.z, task.forget, origin)
    return planned


def _weights(networks: Networks, process: str, seed: int) -> dict[str, Tensor]:
    """The weights of a standard network, from which fine-tuning starts."""
    return dict(networks.nets["standard", "classes", process, seed].state_dict())


def _tuning(networks: Networks, found: Mapping[Any, Any]) -> Tuning:
    settings, seeds = networks.settings, networks.seeds
    return Tuning(
        processes=settings.processes,
        arms=arms.tuned_arms_of(settings),
        steps=settings.tune_steps,
        n=settings.n_samples,
        tuned={
            (process, arm, steps): _stacked(found["tuned", process, arm, steps, s] for s in seeds)
            for process in settings.processes
            for arm in arms.tuned_arms_of(settings)
            for steps in settings.tune_steps
        },
        scratch={
            (process, arm): torch.stack([found["judged", (arm, "classes", process, s)]["found"] for s in seeds])
            for process in settings.processes
            for arm in ("standard", "unseen")
        },
        growth={name: found["growth", name] for name in _RUNAWAY},
    )


class Group(NamedTuple):
    """How a group is measured: the independent calls, by key, and what becomes of their results."""

    calls: Callable[[Networks], dict[Any, Call]]
    gathered: Callable[[Networks, Mapping[Any, Any]], Any]


GROUPS = {
    "samples": Group(_sample_calls, _samples),
    "likelihoods": Group(_likelihood_calls, _likelihoods),
    "inpainting": Group(_inpainting_calls, _inpainting),
    "reconstruction": Group(_reconstruction_calls, _reconstruction),
    "tuning": Group(_tuning_calls, _tuning),
}
