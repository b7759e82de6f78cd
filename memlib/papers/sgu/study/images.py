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
MAIN = ("standard", "unseen", *arms.PRINTED)  # the arms that decide
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

    def keys(self, names: Sequence[str], task: str = "main") -> list[Key]:
        """The networks of some arms of a task on the first process, by arm and seed."""
        return [(arm, task, self.process, s) for arm in names for s in seeds_of(self.settings, self.seeds, arm, task)]

    def found(self, found: Mapping[Any, Any], what: str, arm: str, task: str = "main") -> list[Any]:
        """What was found on the networks of an arm, by seed."""
        return [found[what, key] for key in self.keys([arm], task)]

    def drawn(self, task: str) -> bool:
        """Whether the images of a task are drawn: what is made of others may be a photograph and is not kept."""
        source = {"main": self.settings.data, "far": self.settings.far, "control": self.settings.control}[task]
        return source.partition(":")[0] in _DRAWN


def seeds_of(settings: Settings, seeds: range, arm: str, task: str) -> range:
    """The seeds of an arm: all of those that decide, fewer of the others."""
    return seeds if task == "main" and arm in MAIN else seeds[: settings.n_side]


def networks_of(settings: Settings, groups: Sequence[str], seeds: range) -> list[Key]:
    """The networks from scratch that these groups need."""
    first, every = settings.processes[0], dict[Key, None]()

    def add(names: Sequence[str], task: str = "main") -> None:
        for arm in names:
            every.update({(arm, task, first, s): None for s in seeds_of(settings, seeds, arm, task)})

    for group in groups:
        if group == "tuning":
            wanted = [(arm, process) for process in tuned_processes(settings) for arm in ("standard", "unseen")]
            every |= {(arm, "main", process, s): None for arm, process in wanted for s in seeds[: settings.n_side]}
        elif group == "samples":
            add(arms.arms_of(settings))
            for task, names in OTHERS.items():
                add(names if getattr(settings, task) else (), task)
        else:
            add(MAIN)
    return list(every)


def tuned_processes(settings: Settings) -> tuple[str, ...]:
    """The processes of fine-tuning: those of U6 where they are, else all."""
    return tuple(name for name in settings.processes if name != "VE") or settings.processes


# Samples: U1, U3 and U8.


def _sample_calls(networks: Networks) -> dict[Any, Call]:
    settings = networks.settings
    keys = networks.keys(networks.arms)
    keys += [key for name, others in OTHERS.items() if name in networks.tasks for key in networks.keys(others, name)]
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
        judged={(task, process, arm): _stacked(networks.found(found, "judged", arm, task)) for arm, task in cells},
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
        for key in networks.keys(MAIN)
        for side in SIDES
    }


def _likelihoods(networks: Networks, found: Mapping[Any, Any]) -> Likelihoods:
    process, task, seeds = networks.process, networks.tasks["main"], networks.seeds
    nets = {arm: networks.nets[arm, "main", process, seeds[0]] for arm in MAIN}
    checked = ("check", None) in found
    return Likelihoods(
        processes=(process,),
        arms=MAIN,
        bits={
            (process, arm, side): torch.stack([found["bits", (arm, "main", process, s), side] for s in seeds])
            for arm in MAIN
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
        for key in networks.keys(MAIN):
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
    for arm in MAIN:
        keys = networks.keys([arm])
        for mask in measures.MASKS:
            runs = [found["refilled", key, mask] for key in keys if ("refilled", key, mask) in found]
            answers |= {(mask, arm, side): measures.gathered(runs, side) for side in SIDES}
        if networks.drawn("main"):
            images[arm] = found["refilled", keys[0], measures.MASKS[0]]["images"]
    return Inpainting(MAIN, measures.MASKS, answers, images)


def _reconstruction_calls(networks: Networks) -> dict[Any, Call]:
    task, n = networks.tasks["main"], networks.settings.n_levels
    return {
        ("restored", key): (measures.restored, task, key[2], n, key[3], measures.sigmas(), networks.nets[key])
        for key in networks.keys(MAIN)
    }


def _reconstruction(networks: Networks, found: Mapping[Any, Any]) -> Reconstruction:
    answers, task = {}, networks.tasks["main"]
    for arm in MAIN:
        every = networks.found(found, "restored", arm)
        for i, time in enumerate(measures.TIMES):
            answers |= {(time, arm, side): measures.gathered([one[i] for one in every], side) for side in SIDES}
    lost = task.test_forget
    real = float((task.answers(task.features) == task.test_labels)[lost].double().mean())
    return Reconstruction(MAIN, measures.TIMES, measures.sigmas(), real, answers)


# Fine-tuning: U6.


def _tuning_calls(networks: Networks) -> dict[Any, Call]:
    settings, task, seeds = networks.settings, networks.tasks["main"], networks.seeds[: networks.settings.n_side]
    planned: dict[Any, Call] = {}
    likely = settings.neighbours  # one network and both sides take as long as many steps of fine-tuning
    for process in tuned_processes(settings):
        for s in seeds:
            origin = _weights(networks, process, s)
            for arm in arms.tuned_arms_of(settings):
                for steps in settings.tune_steps:
                    plan = arms.plan(arm, process, s, settings, steps)
                    longest = steps == max(settings.tune_steps)
                    sizes = (settings.n_levels, settings.n_samples, settings.n_likely if likely and longest else 0)
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
                for side in SIDES if likely else ():
                    planned["bits", key, side] = (measures.bits, task, side, networks.nets[key], settings.n_likely)
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
    settings, seeds = networks.settings, networks.seeds[: networks.settings.n_side]
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
        bits=_tuned_bits(networks, found, seeds) if settings.neighbours else {},
    )


def _tuned_bits(networks: Networks, found: Mapping[Any, Any], seeds: Sequence[int]) -> dict[Any, Tensor]:
    """Bits per dimension of each side, (S,), by process, arm and side: from scratch, then the longest fine-tuning."""
    bits, longest = {}, max(networks.settings.tune_steps)
    for process in tuned_processes(networks.settings):
        for arm in ("standard", "unseen"):
            for side in SIDES:
                every = [found["bits", (arm, "main", process, s), side].mean() for s in seeds]
                bits[process, f"{arm}, from scratch", side] = torch.stack(every)
        for arm in arms.tuned_arms_of(networks.settings):
            for side in SIDES:
                bits[process, arm, side] = torch.stack([found["tuned", process, arm, longest, s][side] for s in seeds])
    return bits


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
