"""From sources of images to worlds: the parts of each, without copies across them, and the pool dealt by the coin."""

from typing import Literal

import torch

from memlib import data
from memlib.errors import Refused
from memlib.papers.synthesis.pool import Canaries, deal
from memlib.papers.synthesis.study.settings import Settings
from memlib.papers.synthesis.study.world import World, coders_of
from memlib.run import Run


def load(settings: Settings, run: Run) -> list[World]:
    """The worlds of all sources. Raises Refused, before anything is trained, for images that do not fit."""
    sources = (settings.data, *settings.others)
    kinds = [source.partition(":")[0] for source in sources]
    names = [kind if kinds.count(kind) == 1 else f"{kind} {i + 1}" for i, kind in enumerate(kinds)]
    return [_load(source, name, settings, run) for source, name in zip(sources, names, strict=True)]


def _load(source: str, name: str, settings: Settings, run: Run) -> World:
    kind = source.partition(":")[0]
    images = data.load(source, settings.size or (None if kind == "digits" else 32))
    if len(images.names) < 2:
        raise Refused(f"{source} has one label, and a classifier needs two: give images in two folders or more")
    half = len(images) // 2
    wanted = {"pool": min(settings.n_pool, 2 * half // 3), "reference": min(settings.n_reference, half // 11)}
    wanted["test"] = min(settings.n_test, half - sum(wanted.values()))
    if wanted["test"] < 100 or wanted["reference"] < 20:
        raise Refused(
            f"{source} has {len(images)} images, half of which are set aside: they leave {wanted['test']} to test and "
            f"{wanted['reference']} for reference; give 900 or more"
        )
    parts = data.split(images, wanted, settings.half, run.seed, flexible="test")
    if len(parts["test"]) < 100:
        raise Refused(f"{source} leaves {len(parts['test'])} distinct images to test, which resolve no rate of 1 %")
    first = data.copies(parts["pool"].images).unique()  # one of each group of copies
    chosen = parts["pool"][first[: len(first) // 2 * 2]]
    placed = {
        role: part.images.to(run.device, torch.get_default_dtype()) for role, part in (parts | {"pool": chosen}).items()
    }
    whole = chosen.images[0].numel() <= settings.latent
    coordinates: Literal["centred", "principal"] = "centred" if whole else "principal"
    encode, _ = coders_of(placed["reference"], coordinates, settings.latent)
    canaries = Canaries(settings.mislabelled, settings.repeated, settings.times)
    labels, classes = chosen.labels.to(run.device), len(images.names)
    pool = deal(encode(placed["pool"]), labels, classes, settings.pairs, canaries, run.seed)
    told = [
        f"{source}, {settings.half} half: {len(chosen)} images dealt, {classes} labels, {len(placed['test'])} to test",
        f"{settings.mislabelled} of them mislabelled and {settings.repeated} seen {settings.times} times as often",
        f"{2 * settings.pairs} pipelines with {len(chosen) // 2} images each",
    ]
    test_labels = parts["test"].labels.to(run.device)
    return World(
        name, "; ".join(told), pool, encode(placed["test"]), test_labels, placed["reference"], coordinates,
        settings.latent,
    )  # fmt: skip
