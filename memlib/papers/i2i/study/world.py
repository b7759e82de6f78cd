"""The images of a study, one `World` a repetition: split anew, standardised, to retain, to forget or neither."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from memlib import data, features
from memlib.data.images import listed_classes
from memlib.errors import Refused
from memlib.papers.i2i import checkpoints
from memlib.papers.i2i.study.settings import FIRST_SEED, Settings
from memlib.run import Run

LEAST = 50  # images of a class


@dataclass(frozen=True)
class World:
    """The images of one repetition.

    index: 0 for the first repetition. seed: of its split and of all that is trained in it. images: part -> standardised
    (N, C, H, W). places: part -> (N,), which class of `classes` an image has. classes (K,): retain, forget and proxy
    classes, in this order, `sizes` of each. mean, std: (1, C, 1, 1), in pixels of [-1, 1]. All is on the CPU; images
    are handed out on `device`.
    """

    index: int
    seed: int
    images: dict[str, Tensor]
    places: dict[str, Tensor]
    classes: Tensor
    sizes: tuple[int, int, int]
    mean: Tensor
    std: Tensor
    device: torch.device

    def of(self, groups: str, part: str = "test") -> Tensor:
        """The images (N, C, H, W) of retain (R), forget (F) or proxy (P) classes, or of several of them, in a part."""
        return self.images[part][self.member(groups, part)].to(self.device)

    def member(self, groups: str, part: str = "test") -> Tensor:
        """Which images of a part belong to the groups, (N,) bool."""
        group = torch.repeat_interleave(torch.arange(3), torch.tensor(self.sizes))  # of each class
        wanted = torch.tensor(["RFP".index(letter) for letter in groups])
        return torch.isin(group[self.places[part]], wanted)

    def few(self, group: str, per_class: int, part: str = "train") -> Tensor:
        """The first `per_class` images of each class of a group, (N, C, H, W), class by class."""
        start = sum(self.sizes[: "RFP".index(group)])
        places = range(start, start + self.sizes["RFP".index(group)])
        return torch.cat([self.images[part][self.places[part] == place][:per_class] for place in places]).to(
            self.device
        )

    def pixels(self, images: Tensor) -> Tensor:
        """Standardised images (N, C, H, W) back in [-1, 1]."""
        return (images * self.std.to(images) + self.mean.to(images)).clamp(-1, 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.images["train"].shape[1:]
        return channels, height, width


def worlds(settings: Settings, run: Run, first_seed: int = FIRST_SEED) -> list[World]:
    """The images of every repetition, split by `first_seed`, the run's seed and the number of the repetition.

    Raises `Refused` for settings and classes that do not fit together."""
    images, classes = _loaded(settings)
    sizes = part_sizes(settings, len(images))
    seeds = (first_seed + run.seed + index for index in range(settings.n_seeds))
    return [_world(settings, run, images, classes, sizes, *pair) for pair in enumerate(seeds)]


def part_sizes(settings: Settings, total: int) -> dict[str, int]:
    """Images of each part of a half of `total`: 18 % to test and, where weights are tuned, 18 % to validate."""
    half, part = total // 2, round(0.18 * total / 2)
    if settings.factors:
        return {"train": half - 2 * part, "validation": part, "test": part}
    return {"train": half - part, "test": part}


def description(settings: Settings, world: World) -> str:
    """Two lines: where the images come from and how many there are in each part; which classes are which."""
    counts = ", ".join(f"{len(images)} to {_USE[part]}" for part, images in world.images.items())
    groups = f"classes {_listed(settings.retain)} retained, {_listed(settings.forget)} forgotten"
    size = "x".join(map(str, world.shape))
    return f"{settings.data} ({settings.half} half), {size}: {counts}\n{groups}, {_listed(settings.proxy)} proxies"


_USE = {"train": "train", "validation": "validate", "test": "test"}


def _listed(classes: tuple[int | str, ...]) -> str:
    """Classes as a few words: all of up to six, else the first and the last."""
    return " ".join(map(str, classes)) if len(classes) <= 6 else f"{classes[0]} to {classes[-1]} ({len(classes)})"


def _loaded(settings: Settings) -> tuple[data.Images, Tensor]:
    """The images of the classes that take part, and these classes; raises `Refused` before anything is trained."""
    numbers = f"{settings.weights}, {settings.crops}, {settings.families} and {settings.width}"
    if len(settings.weights) != 6 or len(settings.crops) < 2 or not settings.families or settings.width % 32:
        raise Refused(f"six weights, two crops, one family and a width in steps of 32 are needed, not {numbers}")
    if len(settings.diffusion_steps) != 2:
        raise Refused(f"diffusion_steps is {settings.diffusion_steps}: give two numbers, to train and to unlearn")
    if len(set(settings.families)) < len(settings.families):
        raise Refused(f"each family is run once: give {settings.families} without repetitions")
    if settings.checkpoint and not Path(settings.checkpoint).expanduser().is_dir():
        raise Refused(f"there is no folder {settings.checkpoint!r}: give that of a trained model, or none")
    if settings.inception:
        features.inception(settings.inception)
    if settings.clip and not (Path(settings.clip).expanduser() / "config.json").is_file():
        raise Refused(f"there is no CLIP model in {settings.clip!r}: give a folder with its config.json, or none")
    stored = data.load(settings.data, settings.size or None)
    classes = torch.tensor(data.label_numbers(stored, [*settings.retain, *settings.forget, *settings.proxy]))
    stored = stored[torch.isin(stored.labels, classes)]
    counts = [int((stored.labels == one).sum()) for one in classes]
    groups = f"{list(settings.retain)}, {list(settings.forget)} and {list(settings.proxy)}"
    apart = len(set(classes.tolist())) == len(classes)
    if not apart or not (settings.retain and settings.forget and settings.proxy) or min(counts) < LEAST:
        raise Refused(
            f"retain, forget and proxy must be different classes of {settings.data} with {LEAST} images or more each, "
            f"not {groups} with {counts} images: give others; {listed_classes(stored)}"
        )
    return stored, classes


def _world(
    settings: Settings, run: Run, images: data.Images, classes: Tensor, sizes: dict[str, int], index: int, seed: int
) -> World:
    parts = data.split(images, sizes, settings.half, seed, flexible="train")
    mean, std = _standard(settings, parts["train"].images)
    return World(
        index,
        seed,
        {name: ((part.images - mean) / std) for name, part in parts.items()},
        {name: (part.labels[:, None] == classes).long().argmax(1) for name, part in parts.items()},
        classes,
        (len(settings.retain), len(settings.forget), len(settings.proxy)),
        mean,
        std,
        run.device,
    )


def _standard(settings: Settings, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, (1, C, 1, 1): those that a checkpoint wants, else the images' own."""
    wanted = checkpoints.standard(settings.families[0], settings.checkpoint) if settings.checkpoint else None
    return wanted or (images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True))
