"""One round of the loop: train, attack, unlearn, attack again. Each function is a call that the cache keeps."""

import torch
from torch import Tensor, nn

from memlib import nets
from memlib.papers.loop.study import guiding, measures
from memlib.papers.loop.study.guiding import Guide
from memlib.papers.loop.study.measures import Attack, Judge
from memlib.papers.loop.study.world import World, descriptor
from memlib.papers.loop.unlearning import Recipe, fit
from memlib.papers.sgu.study.arms import ARMS
from memlib.papers.synthesis.generators import Network, build
from memlib.random import keyed

Weights = dict[str, Tensor]

SGU = ("orthogonal", "obtuse")
TUNED = ("rest", "ascent", *SGU)  # fine-tuned from the original: on what is kept alone, or turned away as well
NAMES = ("original", "retrained", *TUNED)  # trained on all members; trained anew without what is forgotten
_SYNTHETIC = 70  # added to the seed, in millions: samples that a model is trained on


def trained(
    world: World,
    width: int,
    how: Recipe,
    kept: Tensor,
    looks: tuple[int, ...],
    attack: Attack,
    seed: int,
    images: Tensor | None = None,
) -> tuple[Weights, dict[str, Tensor]]:
    """Weights of models trained from scratch, with quality and extraction on the way.

    Arguments:
        kept: (T, N), how often a model sees each image, in proportion.
        looks: L steps at which it is judged.
        images: (N, *S), what it sees; None is the pool.

    Returns:
        The weights; and `chosen` (L, T), the precision among half of the held-out images, by which a training would be
        stopped, `quality` (L, T), that among the other half, by which it is judged, and `share` (L, T), the samples
        that copy a member.
    """
    torch.manual_seed(seed)
    embed = descriptor(world)
    judge, found = Judge(world, embed, attack.fpr), {"chosen": [], "quality": [], "share": []}

    def look(step: int, average: nn.Module) -> None:
        if step not in looks:
            return
        samples = measures.drawn(average, world, attack, seed)
        for name, images in (("chosen", world.test[::2]), ("quality", world.test[1::2])):
            found[name].append(measures.precision(samples, images, embed))
        found["share"].append((judge.copies(samples) >= 0).double().mean(1).cpu())

    seen = world.pool if images is None else images
    average = fit(_empty(world, width), seen, kept, how, seed, look=look, title=f"rate {how.lr:g}")
    return dict(average.state_dict()), {name: torch.stack(rows) for name, rows in found.items() if rows}


def attacked(
    world: World, width: int, weights: Weights, gone: Tensor, how: Attack, relearn: Recipe, known: int, seed: int
) -> dict[str, Tensor]:
    """What models with these weights give away, and how good their samples are.

    Arguments:
        gone: (T, N), the images that each was, or will be, asked to forget.
        relearn: how an adversary fine-tunes a model on `known` of these, to get at the others.

    Returns:
        `copies` and `relearned`, (T, S), the member that each sample copies, before and after relearning; `others`
        (T, N), what relearning is after; `statistic` (T, N); `restored`, `precision`, `distance` and `loss`, (T,).
    """
    stack, embed = _empty(world, width), descriptor(world)
    stack.load_state_dict(weights)
    stack.eval().requires_grad_(False)
    judge, samples = Judge(world, embed, how.fpr), measures.drawn(stack, world, how, seed)
    found = {
        "copies": judge.copies(samples),
        "statistic": measures.statistic(stack, world, how, seed),
        "restored": measures.restored(stack, judge, gone, how, seed),
        "precision": measures.precision(samples, world.test, embed),
        "distance": measures.distance(samples, world.test, embed),
        "loss": measures.held_out_loss(stack, world, how, seed),
    }
    shown = _some_of(gone, known, seed)
    taught = fit(stack.requires_grad_(True), world.pool, shown, relearn, seed, title="relearning")
    again = measures.drawn(taught, world, how, seed + 50)
    return found | {"relearned": judge.copies(again), "others": gone & ~shown}


def steered(
    world: World, width: int, weights: Weights, gone: Tensor, attack: Attack, how: Guide, seed: int
) -> dict[str, Tensor]:
    """The member that each sample of models with these weights copies, (T, S), or -1; see `guiding`.

    Without guidance (`blind`), steered by labels of the model's own samples (`own`), and towards the labels of the
    images `gone` (T, N), by a classifier of public images (`aimed`). All three start from the same noise.
    """
    stack, embed = _empty(world, width), descriptor(world)
    stack.load_state_dict(weights)
    stack.eval().requires_grad_(False)
    blind = guiding.unguided(stack, world, attack, seed)
    samples = {
        "blind": blind,
        "own": guiding.own_guided(stack, world, embed, blind, attack, how, seed),
        "aimed": guiding.aimed(stack, world, gone, attack, how, seed),
    }
    judge = Judge(world, embed, attack.fpr)
    return {name: judge.copies(x) for name, x in samples.items()}


def distilled(
    world: World,
    width: int,
    weights: Weights,
    how: Recipe,
    looks: tuple[int, ...],
    attack: Attack,
    clean: bool,
    seed: int,
) -> dict[str, Tensor]:
    """Quality and extraction, (L, T) each as in `trained`, of models that see samples of trained models alone.

    Each sees those of the model that has its members; `clean` leaves out the samples that copy one.
    """
    stack = _empty(world, width)
    stack.load_state_dict(weights)
    samples = measures.drawn(stack.eval().requires_grad_(False), world, attack, seed + _SYNTHETIC)
    used = torch.ones(samples.shape[:2], dtype=torch.bool, device=samples.device)
    if clean:
        used = Judge(world, descriptor(world), attack.fpr).copies(samples) < 0
    kept = torch.block_diag(*used.long().split(1))  # (T, T S): model t sees the samples of model t
    return trained(world, width, how, kept, looks, attack, seed, samples.flatten(0, 1))[1]


def unlearned(world: World, width: int, weights: Weights, arm: str, gone: Tensor, how: Recipe, seed: int) -> Weights:
    """Weights after unlearning: each model keeps its members without `gone` (T, N), and forgets these."""
    stack = _empty(world, width)
    stack.load_state_dict(weights)
    chosen = ARMS[arm]
    forgotten = None if chosen.forget_loss is None else gone
    kept = world.inside & ~gone
    return dict(fit(stack, world.pool, kept, how, seed, forgotten=forgotten, arm=chosen, title=arm).state_dict())


def _empty(world: World, width: int) -> nets.Stack:
    shape, models = tuple(world.pool.shape[1:]), len(world.inside)
    return build(Network(shape, width, 2, 0, float(world.reference.std())), models).to(world.pool)


def _some_of(gone: Tensor, count: int, seed: int) -> Tensor:
    """`count` of the images that each model forgot, (T, N); at least one is left."""
    shown = torch.zeros_like(gone)
    for model, row in enumerate(gone):
        places = row.nonzero()[:, 0].cpu()
        order = torch.randperm(len(places), generator=keyed(seed, 1001 + model))[: min(count, len(places) - 1)]
        shown[model, places[order].to(shown.device)] = True
    return shown
