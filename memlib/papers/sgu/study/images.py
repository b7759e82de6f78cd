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
_LIKELY = ("standard", "unseen", *arms.PRINTED)  # arms whose likelihoods are computed
_DRAWN = ("digits", "faces", "mnist")  # what is made of any other source may be a photograph and is not kept
OTHERS = {  # task -> its arms, on the first process
    "far": ("unseen", *arms.PRINTED),
    "control": ("unseen",),
}
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

    def keys(self, *processes: str, task: str = "main") -> list[Key]:
        """The networks of a task on these processes, by process, arm and seed."""
        names = self.arms if task == "main" else OTHERS[task]
        return [(arm, task, process, seed) for process in processes for arm in names for seed in self.seeds]

    def drawn(self, task: str) -> bool:
        """Whether the images of a task are drawn: what is made of others may be a photograph and is not kept."""
        source = {"main": self.settings.data, "far": self.settings.far, "control": self.settings.control}[task]
        return source.partition(":")[0] in _DRAWN


def networks_of(settings: Settings, groups: Sequence[str], seeds: range) -> list[Key]:
    """The networks from scratch that these groups need."""
    first, every = settings.processes[:1], dict[Key, None]()
    for group in groups:
        names = ("standard", "unseen") if group == "tuning" else arms.arms_of(settings)
        processes = tuned_processes(settings) if group == "tuning" else first
        every |= {(arm, "main", process, s): None for process in processes for arm in names for s in seeds}
        if group == "samples":
            others = [name for name in OTHERS if getattr(settings, name)]
            every |= {(arm, name, first[0], s): None for name in others for arm in OTHERS[name] for s in seeds}
    return list(every)


def tuned_processes(settings: Settings) -> tuple[str, ...]:
    """The processes of fine-tuning: those of U6 where they are, else all."""
    return tuple(name for name in settings.processes if name != "VE") or settings.processes


# Samples: U1, U3 and U8.


def _sample_calls(networks: Networks) -> dict[Any, Call]:
    settings = networks.settings
    keys = [key for name in networks.tasks for key in networks.keys(networks.process, task=name)]
    calls: dict[Any, Call] = {("judged", key): _judging(networks, key) for key in keys}
    sizes = (settings.n_levels, settings.n_samples)
    for seed in networks.seeds[: settings.n_frontier]:
        for arm in [name for name in networks.arms if name in arms.FRONTIER]:
            for alpha in arms.FRONTIER[arm]:
                plan = arms.plan(arm, networks.process, seed, settings, alpha=alpha)
                one = (measures.tuned, networks.run, networks.tasks["main"], plan, None, *sizes)
                calls["frontier", arm, alpha, seed] = one
    return calls | {("checked", name): (measures.checked, task) for name, task in networks.tasks.items()}


def _judging(networks: Networks, key: Key) -> Call:
    _, task, process, seed = key
    settings = networks.settings
    sizes = (settings.n_levels, settings.n_samples)
    return (measures.judged, networks.tasks[task], process, *sizes, seed, networks.nets[key])


def _samples(networks: Networks, found: Mapping[Any, Any]) -> Samples:
    settings, seeds, process = networks.settings, networks.seeds, networks.process
    cells = dict.fromkeys(key[1][:2] for key in found if key[0] == "judged" and key[1][2] == process)
    more = dict.fromkeys(key[1:3] for key in found if key[0] == "frontier")
    shown = [(arm, task) for arm, task in cells if networks.drawn(task)]
    return Samples(
        source=f"{settings.data} {list(settings.forget)}",
        processes=settings.processes,
        arms=networks.arms,
        n=settings.n_samples,
        names=networks.tasks["main"].names,
        beside=settings.beside.partition(":")[2].partition(",")[0],
        judged={
            (task, process, arm): _stacked(found["judged", (arm, task, process, s)] for s in seeds)
            for arm, task in cells
        },
        frontier={key: _stacked(found["frontier", *key, s] for s in seeds[: settings.n_frontier]) for key in more},
        alphas={arm: arms.alpha_of(arm, process, settings) for arm in networks.arms},
        judge={name: found["checked", name] for name in networks.tasks},
        images={(task, arm): found["judged", (arm, task, process, seeds[0])]["images"] for arm, task in shown},
    )


def _stacked(runs: Iterable[dict[str, Tensor]]) -> Judged:
    every = list(runs)
    return Judged(**{name: torch.stack([one[name] for one in every]) for name in Judged.__dataclass_fields__})


# Likelihoods: U2, and what an auditor sees.


def _likelihood_calls(networks: Networks) -> dict[Any, Call]:
    task, process = networks.tasks["main"], networks.process
    retrained = networks.nets["unseen", "main", process, networks.seeds[0]]
    checks: dict[Any, Call] = {}
    if task.z[0].numel() <= _EXACT:  # beyond, the exact trace costs more than all the rest
        checks = {("check", probes): (measures.bits, task, "D_g", retrained, 8, probes) for probes in (None, 4)}
    return checks | {
        ("bits", key, side): (measures.bits, task, side, networks.nets[key], networks.settings.n_likely)
        for key in networks.keys(process)
        for side in SIDES
        if key[0] in _LIKELY
    }


def _likelihoods(networks: Networks, found: Mapping[Any, Any]) -> Likelihoods:
    process, task, seeds = networks.process, networks.tasks["main"], networks.seeds
    names = tuple(arm for arm in networks.arms if arm in _LIKELY)
    nets = {arm: networks.nets[arm, "main", process, seeds[0]] for arm in names}
    checked = ("check", None) in found
    return Likelihoods(
        processes=(process,),
        arms=names,
        bits={
            (process, arm, side): torch.stack([found["bits", (arm, "main", process, s), side] for s in seeds])
            for arm in names
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
        for key in networks.keys(networks.process):
            if mask == measures.MASKS[0] or key[3] == networks.seeds[0]:
                sizes = (settings.n_levels, settings.n_fills, key[3], mask)
                planned["refilled", key, mask] = (
                    measures.refilled, networks.tasks["main"], key[2], *sizes, networks.nets[key],
                )  # fmt: skip
    return planned


def _inpainting(networks: Networks, found: Mapping[Any, Any]) -> Inpainting:
    answers, images, task = {}, {}, networks.tasks["main"]
    if networks.drawn("main"):
        images["original"] = task.test[task.test_forget][:12].cpu().half()
    for arm in networks.arms:
        keys = [(arm, "main", networks.process, s) for s in networks.seeds]
        for mask in measures.MASKS:
            runs = [found["refilled", key, mask] for key in keys if ("refilled", key, mask) in found]
            answers |= {(mask, arm, side): measures.gathered(runs, side) for side in SIDES}
        if networks.drawn("main"):
            images[arm] = found["refilled", keys[0], measures.MASKS[0]]["images"]
    return Inpainting(networks.arms, measures.MASKS, answers, images)


def _reconstruction_calls(networks: Networks) -> dict[Any, Call]:
    task, settings = networks.tasks["main"], networks.settings
    return {
        ("restored", key, time): (
            measures.restored, task, key[2], settings.n_levels, key[3], sigma, networks.nets[key],
        )
        for key in networks.keys(networks.process)
        for time, sigma in zip(measures.TIMES, measures.sigmas(), strict=True)
    }  # fmt: skip


def _reconstruction(networks: Networks, found: Mapping[Any, Any]) -> Reconstruction:
    answers, task = {}, networks.tasks["main"]
    for arm in networks.arms:
        for time in measures.TIMES:
            runs = [found["restored", (arm, "main", networks.process, s), time] for s in networks.seeds]
            answers |= {(time, arm, side): measures.gathered(runs, side) for side in SIDES}
    lost = task.test_forget
    real = float((task.answers(task.features) == task.test_labels)[lost].double().mean())
    return Reconstruction(networks.arms, measures.TIMES, measures.sigmas(), real, answers)


# Fine-tuning: U6.


def _tuning_calls(networks: Networks) -> dict[Any, Call]:
    settings, task, seeds = networks.settings, networks.tasks["main"], networks.seeds
    planned: dict[Any, Call] = {}
    for process in tuned_processes(settings):
        for s in seeds:
            origin = _weights(networks, process, s)
            for arm in arms.tuned_arms_of(settings):
                for steps in settings.tune_steps:
                    plan = arms.plan(arm, process, s, settings, steps)
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
                key = (arm, "main", process, s)
                planned["judged", key] = _judging(networks, key)
    process = tuned_processes(settings)[0]
    plan = replace(arms.plan("obtuse", process, seeds[0], settings), alpha=0.05, steps=200, lr=settings.lr)
    origin = _weights(networks, process, seeds[0])
    for name, loss in _RUNAWAY.items():
        planned["growth", name] = (arms.runaway, plan, loss, task.z, task.forget, origin)
    return planned


def _weights(networks: Networks, process: str, seed: int) -> dict[str, Tensor]:
    """The weights of a standard network, from which fine-tuning starts."""
    return dict(networks.nets["standard", "main", process, seed].state_dict())


def _tuning(networks: Networks, found: Mapping[Any, Any]) -> Tuning:
    settings, seeds = networks.settings, networks.seeds
    return Tuning(
        processes=tuned_processes(settings),
        arms=arms.tuned_arms_of(settings),
        steps=settings.tune_steps,
        n=settings.n_samples,
        tuned={
            (process, arm, steps): _stacked(found["tuned", process, arm, steps, s] for s in seeds)
            for process in tuned_processes(settings)
            for arm in arms.tuned_arms_of(settings)
            for steps in settings.tune_steps
        },
        scratch={
            (process, arm): torch.stack([found["judged", (arm, "main", process, s)]["found"] for s in seeds])
            for process in tuned_processes(settings)
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
