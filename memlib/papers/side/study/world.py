"""The images of the study: four parts of one set, and the coordinates that the model works in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from memlib import adapters, data, features
from memlib.data.images import Images
from memlib.errors import Refused
from memlib.features import Embed
from memlib.papers.side.study.settings import Settings
from memlib.papers.side.surrogates import cluster
from memlib.run import Run


@dataclass(frozen=True)
class World:
    """Four disjoint parts of one set of images, each (N, C, H, W), and how the model sees them.

    The model is trained on `members`. `non_members` are scored in the same way although no model saw them.
    `reference` fits the coordinates and the descriptors, `calibration` the thresholds. `labels` (N,) are the members',
    in 0 .. classes - 1; `fresh_labels` (N,) are the non-members', None where the source has no labels.
    """

    description: str
    members: Tensor
    non_members: Tensor
    reference: Tensor
    calibration: Tensor
    labels: Tensor
    classes: int
    fresh_labels: Tensor | None
    coordinates: Literal["principal", "centred", "pixels"]
    latent: int


def prepare(settings: Settings, run: Run) -> tuple[World, adapters.Discrete | None]:
    """The world, and the foreign model to attack, None where one is to be trained.

    Raises Refused, before anything is trained, for settings that do not fit one another, for images or a model that
    cannot be read, and for a model that makes images of another shape than the data.
    """
    if settings.n_random < settings.n_samples:
        raise Refused(
            f"n_random = {settings.n_random} is below n_samples = {settings.n_samples}: give at least as many"
        )
    if settings.clusters > settings.n_synthetic:
        raise Refused(
            f"{settings.n_synthetic} synthetic images cannot be put into {settings.clusters} clusters: give more "
            "n_synthetic or fewer clusters"
        )
    if settings.descriptor == "sscd":
        features.sscd(Path(settings.sscd) if settings.sscd else None, device=run.device)
    foreign = adapters.from_diffusers(settings.model, device=run.device) if settings.model else None
    native, files = None if settings.data == "digits" else 16, ""
    if foreign:
        assert foreign.shape is not None  # it comes from a folder
        if getattr(foreign.net, "class_embedding", None) is not None:
            raise Refused(f"model={settings.model!r} wants a class label, and this study gives none: give one without")
        _, height, width = foreign.shape
        native = width
        if width != height:  # such images are taken as they are
            native, files = None, f", as files of {height} x {width} pixels"
    images = data.load(settings.data, settings.size or native)
    others = data.load(settings.held_out, settings.size or native) if settings.held_out else None
    shape = tuple(images.images.shape[1:])
    if foreign and foreign.shape != shape:
        raise Refused(
            f"the model makes images {foreign.shape}, data has {shape}: give the data it was trained on{files}"
        )
    parts = data.audit_split(images, settings.n_train, settings.half, run.seed, others, reference=settings.latent)
    return _world(settings, run, images, parts, foreign is not None), foreign


def _world(settings: Settings, run: Run, images: Images, parts: dict[str, Images], foreign: bool) -> World:
    """The parts on the run's device and in torch's default dtype."""
    placed = {name: part.images.to(run.device, torch.get_default_dtype()) for name, part in parts.items()}
    members = placed["members"]
    named = len(images.names) > 1
    if named:
        labels, classes = parts["members"].labels.to(run.device), len(images.names)
        fresh_labels = parts["non_members"].labels.to(run.device)
    else:  # then clusters of the training images stand in for the labels of a curator
        known = features.half_whitened(members)(members)
        groups = cluster(known, max(2, len(members) // 5), smallest=1, seed=run.seed)
        labels, classes, fresh_labels = groups.labels, int(groups.labels.max()) + 1, None
    pixels = settings.network == "unet" or members[0].numel() <= settings.latent
    sizes = ", ".join(f"{len(part)} {name.replace('_', '-')}" for name, part in parts.items())
    told = [f"{settings.data}: {len(images)} images {tuple(members.shape[1:])}, fingerprint {images.fingerprint[:12]}"]
    told += [sizes, f"{classes} labels, {len(labels.unique())} of them in use"]
    if foreign and not settings.held_out:
        told.append("if the model was trained on all of data, non-members are no control: give held_out")
    return World(
        "; ".join(told),
        **placed,
        labels=labels,
        classes=classes,
        fresh_labels=fresh_labels,
        coordinates="pixels" if foreign else "centred" if pixels else "principal",
        latent=settings.latent,
    )


def coders(world: World) -> tuple[Embed, Embed]:
    """Encode and decode: images (N, C, H, W) to what the model works on, (N, *S), and back.

    Principal components of the reference, pixels minus its mean, or pixels as they are. Nothing about members or
    non-members enters.
    """
    if world.coordinates == "principal":
        return features.latents(world.reference, world.latent)
    centre = world.reference.mean(0) if world.coordinates == "centred" else 0

    def encode(images: Tensor) -> Tensor:
        return images - centre

    def decode(z: Tensor) -> Tensor:
        return z + centre

    return encode, decode
