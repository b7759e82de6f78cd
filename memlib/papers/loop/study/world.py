"""The images of the study: a pool that a coin deals to the models, held-out images, and a reference."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from memlib import data, membership
from memlib.errors import Refused
from memlib.features import Embed
from memlib.papers.loop.study.settings import Settings
from memlib.papers.synthesis.study.world import coders_of, descriptor_of
from memlib.random import keyed
from memlib.run import Run

Kind = Literal["images", "label"]


@dataclass(frozen=True)
class World:
    """Images in the coordinates of the models, and who sees what.

    Attributes:
        description: one line for the page.
        pool: (N, *S), no two of them copies.
        labels: (N,).
        inside: (T, N), whether a model is trained on an image; model 2k + 1 on what model 2k is not.
        test: (M, *S), held-out images.
        reference: (R, C, H, W), images that fit coordinates and descriptor.
        public, public_labels: the reference in coordinates, (R, *S), and its labels, (R,).
        latent: principal components, where pixels are more.
    """

    description: str
    pool: Tensor
    labels: Tensor
    inside: Tensor
    test: Tensor
    reference: Tensor
    public: Tensor
    public_labels: Tensor
    latent: int


def load(settings: Settings, run: Run) -> World:
    """The images of the settings, on the device of the run.

    Raises Refused for images that are too few, before anything is trained.
    """
    kind = settings.data.partition(":")[0]
    images = data.load(settings.data, settings.size or (None if kind == "digits" else 16))
    half = len(images) // 2
    wanted = {"pool": min(settings.n_pool, half // 3), "reference": min(settings.n_reference, half // 5)}
    wanted["test"] = min(settings.n_test, half - sum(wanted.values()))
    if wanted["test"] < 100 or wanted["pool"] < 80:
        raise Refused(
            f"{settings.data} has {len(images)} images, half of which are set aside: they leave {wanted['pool']} to "
            f"deal and {wanted['test']} to test; give 600 or more"
        )
    parts = data.split(images, wanted, settings.half, run.seed, flexible="test")
    first = data.copies(parts["pool"].images).unique()
    chosen = parts["pool"][first[: len(first) // 2 * 2]]
    placed = {
        role: part.images.to(run.device, torch.get_default_dtype()) for role, part in (parts | {"pool": chosen}).items()
    }
    encode, _ = coders(placed["reference"], settings.latent)
    inside = membership.halves(len(chosen), settings.pairs, keyed(run.seed, 0)).to(run.device)
    told = (
        f"{settings.data}, {settings.half} half: {len(chosen)} images dealt to {len(inside)} models, "
        f"{len(chosen) // 2} each; {len(placed['test'])} held out"
    )
    pool, test, public = (encode(placed[role]) for role in ("pool", "test", "reference"))
    labels, named = chosen.labels.to(run.device), parts["reference"].labels.to(run.device)
    return World(told, pool, labels, inside, test, placed["reference"], public, named, settings.latent)


def coders(reference: Tensor, latent: int) -> tuple[Embed, Embed]:
    """Encode and decode, fitted on a reference (R, C, H, W): images (N, C, H, W) to coordinates (N, *S), and back.

    By principal components where an image has more pixels than `latent`, as in chapter 6.
    """
    return coders_of(reference, "principal" if reference[0].numel() > latent else "centred", latent)


def descriptor(world: World) -> Embed:
    """Coordinates (N, *S) -> descriptors (N, k) whose cosine compares images; fitted on the reference."""
    return descriptor_of(world.reference, coders(world.reference, world.latent)[1])


def forgotten(world: World, kind: Kind, count: int, seed: int) -> Tensor:
    """Which of its members each model is asked to forget, (T, N): `count` by chance, or of one label.

    The two models of a pair have the same label, and labels take turns; those with fewer than `count` members in some
    model give what they have.
    """
    gone = torch.zeros_like(world.inside)
    names = world.labels.unique().tolist()
    for model, inside in enumerate(world.inside):
        among = inside if kind == "images" else inside & (world.labels == names[(model // 2) % len(names)])
        places = among.nonzero()[:, 0].cpu()
        order = torch.randperm(len(places), generator=keyed(seed, 1 + model))[:count]
        gone[model, places[order].to(gone.device)] = True
    if (gone.sum(1) < 2).any():  # an adversary relearns one to get at another
        fewest = int(gone.sum(1).min())
        raise Refused(
            f"a model has {fewest} members of the label that it is to forget, and needs 2: give more images, or "
            "kinds=['images']"
        )
    return gone
