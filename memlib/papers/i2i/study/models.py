"""The models of a study: originals that are trained, and what a method makes of them by unlearning.

All are cached by what they depend on, so that every part of the study finds the models of the others.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from memlib import train
from memlib.errors import Refused
from memlib.features import alterations
from memlib.papers.i2i import checkpoints, masks, methods, targets
from memlib.papers.i2i.diffusion import Inpainter
from memlib.papers.i2i.mae import MAE
from memlib.papers.i2i.masked_code import MaskedCodeInpainter
from memlib.papers.i2i.study.settings import Family, Settings
from memlib.papers.i2i.study.world import World
from memlib.papers.i2i.vqgan import VQGAN
from memlib.random import choose
from memlib.run import Run

METHODS: dict[str, methods.Loss] = {
    "as released": methods.li2024_released,
    "as printed": methods.li2024,
    "Max Loss": methods.max_loss,
    "Noisy Label": methods.noisy_label,
    "Retain Label": methods.retain_label,
    "Random Encoder": methods.random_encoder_released,
}
OURS = ("as released", "as printed")  # both readings of the paper's own method; the others are its baselines
RETAIN_ONLY = ("Noisy Label", 0.0)  # at weight 0 a baseline is its retain term: the model is trained on, without F

NOISES: dict[str, Callable[[Tensor], targets.Target]] = {
    "N(0, I)": targets.gaussian,
    "U[-1, 1]": targets.uniform,
    "U, variance 1": partial(targets.uniform, half_width=3**0.5),
    "rank 8": lambda images: targets.low_rank(images, k=min(8, len(images) - 1)),
    "exact covariance": targets.covariance,
}

Hole = Callable[[torch.Generator], Tensor]  # draws a mask (1, 1, H, W) for one step


@dataclass(frozen=True)
class Plan:
    """How the models of one family are built, trained and unlearned: the settings that they depend on."""

    family: Family
    checkpoint: str
    shape: tuple[int, int, int]
    patch: int
    width: int
    batch: int
    vary: bool
    train_steps: int
    train_lr: float
    unlearn_steps: int
    unlearn_lr: float
    device: torch.device


def plan_for(settings: Settings, family: Family, world: World) -> Plan:
    """The plan of a family."""
    rates = {"mae": settings.unlearn_lr, "vqgan": settings.vqgan_lr}
    transformer = family in rates
    steps = (settings.train_steps, settings.unlearn_steps) if transformer else settings.diffusion_steps
    return Plan(
        family=family,
        checkpoint=settings.checkpoint if family == settings.families[0] else "",
        shape=world.shape,
        patch=settings.patch or world.shape[-1] // 4,
        width=settings.width,
        batch=settings.batch,
        vary=not settings.checkpoint,
        train_steps=steps[0],
        train_lr=settings.train_lr,
        unlearn_steps=steps[1],
        unlearn_lr=rates.get(family, settings.diffusion_lr),
        device=world.device,
    )


# Holes.


def centre(plan: Plan, k: int) -> Tensor:
    """The mask (1, 1, H, W) of the k x k patches in the centre."""
    return masks.centre(plan.shape[-1], plan.patch, k).to(plan.device)


def fixed(mask: Tensor, generator: torch.Generator) -> Tensor:
    """The mask (1, 1, H, W) itself; nothing is drawn."""
    return mask


def any_of(holes: tuple[Hole, ...], generator: torch.Generator) -> Tensor:
    """The mask (1, 1, H, W) of one of the holes, each as likely."""
    return holes[int(torch.randint(len(holes), (), generator=generator))](generator)


# Originals.


def build(plan: Plan) -> nn.Module:
    """An untrained model of the family, or the checkpoint. Raises `Refused` for one of another size of image."""
    if plan.checkpoint:
        model = checkpoints.load(plan.family, plan.checkpoint)
        if (shape := tuple(cast(Any, model).shape)) != plan.shape:  # every family has one
            raise Refused(f"the checkpoint completes {shape} and images are {plan.shape}: give a size")
    elif plan.family == "mae":
        model = MAE.small(plan.shape, plan.patch, width=plan.width, depth=2)
    elif plan.family == "vqgan":
        model = VQGAN.small(plan.shape, plan.patch, codes=32, channels=plan.width // 4, width=plan.width, depth=2)
    else:
        kind = Inpainter if plan.family == "diffusion" else MaskedCodeInpainter
        model = kind.small(plan.shape, widths=(plan.width // 4, plan.width // 2))
    return model.to(plan.device)


def untrained(plan: Plan, seed: int) -> nn.Module:
    """A model with the initial weights of a seed, frozen."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(plan).eval().requires_grad_(False)


def original(
    run: Run, plan: Plan, world: World, hole: Hole, steps: int | None = None, groups: str = "RFP"
) -> nn.Module:
    """The model trained on images of these groups, frozen; the checkpoint where there is one."""
    if plan.checkpoint:
        return build(plan).eval().requires_grad_(False)
    images = world.of(groups, "train")
    steps = plan.train_steps if steps is None else steps
    inputs = (images, hole, steps, plan.batch, plan.train_lr, plan.vary, world.seed)
    return run.trained(f"original-{plan.family}", partial(build, plan), fit_original, *inputs, seed=world.seed)


def fit_original(
    model: nn.Module, images: Tensor, hole: Hole, steps: int, batch: int, lr: float, vary: bool, seed: int
) -> nn.Module:
    """Train a model on images (N, C, H, W), a VQ-GAN's words first; the running average of its weights."""

    def some(generator: torch.Generator) -> Tensor:
        chosen = choose(images, 2 * batch, generator)
        return varied(chosen, generator) if vary else chosen

    def loss(model: nn.Module, generator: torch.Generator) -> Tensor:
        x = some(generator)
        return cast(methods.Completer, model).loss(x, x, hole(generator), generator).mean()

    if isinstance(model, VQGAN):
        words = model.tokenizer.requires_grad_(True)
        list(train.fit(words, lambda _, g: model.tokenizer_loss(some(g)), (steps + 1) // 2, lr=lr, seed=seed))
        words.requires_grad_(False)
    average = copy.deepcopy(model)
    list(train.fit(model, loss, steps, lr=lr, warmup=min(30, steps - 1), ema=average, decay=0.99, seed=seed))
    return average


def varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), a random half of them turned, scaled and moved a little, against learning by heart."""
    some = torch.rand(len(images), generator=generator) < 0.5
    turn, scale, right, down = some * torch.randn(4, len(images), generator=generator)
    pixel = 0.5 * (images.shape[-1] / 8) ** 0.5
    return alterations.moved(images, 1 + 0.1 * scale, pixel * right, pixel * down, 0.17 * turn)


# Unlearning.


def unlearned(
    run: Run,
    plan: Plan,
    world: World,
    start: nn.Module,
    hole: Hole,
    method: str,
    weight: float,
    noise: str = "N(0, I)",
    retain: Tensor | None = None,
) -> nn.Module:
    """What a method makes of the model `start`, frozen.

    Arguments:
        method: one of `METHODS`.
        weight: alpha, of the forget term.
        noise: one of `NOISES`.
        retain: the retain images (N, C, H, W); None are those of the training part.
    """
    kept = world.of("R", "train") if retain is None else retain
    budget = (plan.unlearn_steps, plan.batch, plan.unlearn_lr, plan.vary, world.seed)
    inputs = (start.state_dict(), method, weight, kept, world.of("F", "train"), hole, noise, *budget)
    return run.trained(f"unlearned-{plan.family}", partial(build, plan), fit_unlearned, *inputs, seed=world.seed)


def fit_unlearned(
    model: nn.Module,
    start: dict[str, Tensor],
    method: str,
    weight: float,
    retain: Tensor,
    forget: Tensor,
    hole: Hole,
    noise: str,
    steps: int,
    batch: int,
    lr: float,
    vary: bool,
    seed: int,
) -> nn.Module:
    """Unlearn forget images (M, C, H, W), keeping retain images (N, C, H, W), from the weights `start`."""
    model.load_state_dict(start)
    path = methods.unlearn(
        model.eval().requires_grad_(False),
        METHODS[method],
        retain,
        forget,
        hole,
        NOISES[noise](forget),
        vary=varied if vary else None,
        alpha=weight,
        steps=steps,
        batch=batch,
        lr=lr,
        seed=seed,
    )
    *_, (model, _) = path
    return model
