"""How completions are scored: a judge that sees hidden regions alone, and fillings that complete nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from memlib import features, noise
from memlib.papers.i2i.diffusion import Inpainter
from memlib.papers.i2i.evaluation import Judge, Quality, quality, region
from memlib.papers.i2i.methods import Completer
from memlib.papers.i2i.study.world import World
from memlib.run import Run

WIDTH = 16  # of the classifier that judges
BATCH = 250  # images completed at once
DDIM_STEPS = 10  # as good as 50 on the digits


@dataclass(frozen=True)
class Scores:
    """Scores of retain (0) and forget (1) completions, (2,) each, or (S, 2) of S repetitions.

    cosine: mean between features of the completed and of the true region; frechet: distance; inception: score.
    """

    cosine: Tensor
    frechet: Tensor
    inception: Tensor


def stacked(scores: Iterable[Scores]) -> Scores:
    """Scores (2,) of repetitions as one, (S, 2)."""
    every = list(scores)
    return Scores(*(torch.stack([getattr(one, name) for one in every]) for name in ("cosine", "frechet", "inception")))


class Judges(NamedTuple):
    """Paths of the paper's judges, or empty; else the steps that a classifier is trained for. crops: the k of the k x k
    centres that it learns in the main comparison, the main one first."""

    inception: str
    clip: str
    steps: int
    crops: tuple[int, ...]


def judge_of(run: Run, world: World, judges: Judges, holes: Sequence[Tensor]) -> Judge:
    """The paper's judges where their weights are given, else a classifier of the regions that these masks hide.

    holes: masks (1, 1, H, W) or (N, 1, H, W), N the images of the training part.
    """
    if judges.inception:
        net = features.inception(judges.inception, device=world.device)

        def embedded(x: Tensor) -> Tensor:
            return net.embed(world.pixels(x))

        judge = Judge(embedded, lambda x: net.probabilities(world.pixels(x)), embedded)
    else:
        images, places = world.images["train"].to(world.device), world.places["train"]
        seen = torch.cat([region(images, mask) for mask in holes])
        answers = places.repeat(len(holes)).to(world.device)
        shape = (images.shape[1], images.shape[-1], int(places.max()) + 1)
        inputs = (seen, answers, judges.steps, world.seed)
        net = run.trained("judge", partial(_classifier, *shape, world.device), _fit_judge, *inputs)
        net = cast(features.ClassifierFeatures, net)
        judge = Judge(net.embed, net.probabilities, net.embed)
    if not judges.clip:
        return judge._replace(resemble=judge.embed)
    embed = features.clip(judges.clip, device=world.device)
    return judge._replace(resemble=lambda x: embed(world.pixels(x)))


def _classifier(channels: int, size: int, classes: int, device: torch.device) -> nn.Module:
    return features.ClassifierFeatures(channels, size, classes, WIDTH).to(device)


def _fit_judge(net: nn.Module, seen: Tensor, answers: Tensor, steps: int, seed: int) -> nn.Module:
    return features.classifier(seen, answers, steps=steps, width=WIDTH, shift=0, seed=seed)


def accuracy(world: World, judge: Judge, mask: Tensor) -> float:
    """Fraction of true hidden regions of test images, mask (1, 1, H, W), whose class the judge names."""
    answers = judge.probabilities(region(world.images["test"].to(world.device), mask)).argmax(1).cpu()
    return float((answers == world.places["test"]).float().mean())


def completed(model: nn.Module, images: Tensor, mask: Tensor) -> Tensor:
    """Images (N, C, H, W) with what the mask (1 or N, 1, H, W) hides filled in; image i with the noise of seed i."""
    mask = mask.expand(len(images), 1, *images.shape[2:])
    few = {"steps": DDIM_STEPS} if isinstance(model, Inpainter) else {}
    completer, parts = cast(Completer, model), torch.arange(len(images)).split(BATCH)
    return torch.cat([completer.complete(images[i], mask[i], noise.seeded(i.tolist()), **few) for i in parts])


def scored(model: nn.Module, world: World, judge: Judge, mask: Tensor, part: str = "test") -> Scores:
    """Scores (2,) of a model's completions of the retain and forget images of a part, mask (1, 1, H, W)."""
    found = [_quality(model, world.of(group, part), judge, mask) for group in "RF"]
    return Scores(
        torch.stack([one.cosine.mean() for one in found]).cpu(),
        torch.tensor([one.frechet for one in found]),
        torch.tensor([one.inception for one in found]),
    )


def _quality(model: nn.Module, truth: Tensor, judge: Judge, mask: Tensor) -> Quality:
    return quality(completed(model, truth, mask), truth, mask, judge)


def cosine(made: Tensor, truth: Tensor, judge: Judge, mask: Tensor) -> float:
    """Mean cosine between features of hidden regions, of images `made` and of the truth, (N, C, H, W) both."""
    completed, true = (judge.resemble(region(images, mask)) for images in (made, truth))
    return float(torch.cosine_similarity(completed, true).mean())


def best_filling(world: World, judge: Judge, mask: Tensor, group: str) -> float:
    """The highest mean cosine, a scalar, of three fillings of test images that complete nothing.

    They are an empty region, noise, and the region of an image of the other group.
    """
    truth = world.of(group)
    drawn = noise.noise_from(torch.Generator().manual_seed(world.seed))(truth)
    fillings = (torch.zeros_like(truth), drawn, another(world, group))
    return max(cosine(filling, truth, judge, mask) for filling in fillings)


def another(world: World, group: str) -> Tensor:
    """As many test images (N, C, H, W) of the other group: forget for retain, retain for forget."""
    images = world.of("F" if group == "R" else "R")
    return images[torch.arange(len(world.of(group))) % len(images)]
