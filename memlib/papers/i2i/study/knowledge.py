"""Does the model still know the forgotten classes? A linear probe of its codes, and a few steps of further training."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from memlib import train
from memlib.papers.i2i.evaluation import Judge, counted, linear_probe, relearning
from memlib.papers.i2i.methods import Completer, flatten_codes
from memlib.papers.i2i.study.comparison import (
    RELEASED,
    Family,
    alone,
    judges_of,
    main_hole,
    main_judge,
    main_pair,
)
from memlib.papers.i2i.study.judging import Judges, completed, cosine
from memlib.papers.i2i.study.models import Plan, centre, original, plan_for, untrained
from memlib.papers.i2i.study.settings import Settings
from memlib.papers.i2i.study.world import World
from memlib.run import Run

STEPS = (0, 1, 2, 5, 10, 20, 50)  # of further training, at which a model is looked at
PER_CLASS = 5  # images of each forget class that it is trained on
NOTHING = "T(x) itself"


@dataclass(frozen=True)
class Knowledge:
    """What models know of the forget classes, by name of the model; it decides no claim.

    probe: (S,), fraction of test images of forget classes whose class a linear probe reads off the codes. relearning:
    (S, len(STEPS)), mean cosine on forget test images while the model is trained on five images a forget class.
    """

    probe: dict[str, Tensor]
    relearning: dict[str, Tensor]


def knowledge(settings: Settings, run: Run, worlds: Sequence[World], family: Family) -> Knowledge:
    """Original, unlearned, retrained without the forget classes, never trained, and what is shown itself."""
    calls = [
        (alone(run), plan_for(settings, settings.families[0], world), world)
        + (judges_of(settings), family.best[RELEASED])
        for world in worlds
    ]
    found = run.each("knowledge", measure_knowledge, calls)
    probes, curves = zip(*found, strict=True)
    return Knowledge(
        {name: torch.tensor([one[name] for one in probes]) for name in probes[0]},
        {name: torch.tensor([one[name] for one in curves]) for name in curves[0]},
    )


def measure_knowledge(
    run: Run, plan: Plan, world: World, judges: Judges, weight: float
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The probe's fraction and the relearning curve of every model of one repetition."""
    judge, mask = main_judge(run, plan, world, judges), centre(plan, judges.crops[0])
    models = dict(main_pair(run, plan, world, judges, weight)._asdict())  # original and unlearned
    if not plan.checkpoint:
        models["retrained without"] = original(run, plan, world, main_hole(plan, judges), groups="RP")
        models["never trained"] = untrained(plan, world.index)
    probes = {name: _probe(model, world, mask) for name, model in models.items()}
    probes[NOTHING] = _probe(None, world, mask)
    return probes, {name: _relearned(model, plan, world, judge, mask) for name, model in models.items()}


def _probe(model: nn.Module | None, world: World, mask: Tensor) -> float:
    """Fraction of test images of forget classes that a probe of the codes, or of T(x) where None, puts into theirs."""
    codes = [_codes(model, world, part, mask) for part in ("train", "test")]
    hits = linear_probe(codes[0], world.places["train"], codes[1], world.places["test"])
    forget = world.classes[world.sizes[0] : world.sizes[0] + world.sizes[1]].tolist()
    return counted(hits, world.classes[world.places["test"]], forget).rate


@torch.no_grad()
def _codes(model: nn.Module | None, world: World, part: str, mask: Tensor) -> Tensor:
    images = world.images[part].to(world.device)
    if model is None:
        return images[:, :, ~mask[0, 0]].flatten(1).cpu()
    completer, generator = cast(Completer, model), torch.Generator().manual_seed(world.seed - world.index)
    return flatten_codes(completer.encode(completer.initial_inputs(images, mask, generator))).cpu()


def _relearned(model: nn.Module, plan: Plan, world: World, judge: Judge, mask: Tensor) -> list[float]:
    """Mean cosine on forget test images after `STEPS` of training on a few images of each forget class."""
    model = copy.deepcopy(model).requires_grad_(True)
    images, truth = world.few("F", PER_CLASS), world.of("F")

    def loss(model: nn.Module, generator: torch.Generator) -> Tensor:
        return cast(Completer, model).loss(images, images, mask, generator).mean()

    def score() -> float:
        return cosine(completed(model.eval(), truth, mask), truth, judge, mask)

    steps = train.fit(model, loss, STEPS[-1], lr=plan.unlearn_lr, seed=world.seed)
    return [value for _, value in relearning(steps, score, STEPS)]
