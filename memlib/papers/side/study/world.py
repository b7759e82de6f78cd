"""The images of the study: four parts of one set, and the coordinates that the model works in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from memlib import adapters, data, features
from memlib.cache.recent import recent
from memlib.data.images import Images
from memlib.errors import Refused
from memlib.features import Embed
from memlib.papers.side.study.settings import Settings
from memlib.papers.side.surrogates import partition
from memlib.run import Run

CALIBRATION = 6  # images that set thresholds at the least: five times the smallest rate must stay below 1


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


class Sources(NamedTuple):
    """The images of `data`, those of `held_out`, and the model to attack, None where there is none."""

    images: Images
    others: Images | None
    foreign: adapters.Discrete | None


def prepare(settings: Settings, run: Run) -> tuple[World, adapters.Discrete | None]:
    """The world, and the foreign model to attack, None where one is to be trained.

    Raises Refused, before anything is trained, as `read` and `dealt`.
    """
    sources = read(settings, run)
    return dealt(sources, settings, run), sources.foreign


def read(settings: Settings, run: Run) -> Sources:
    """Read the images and the model.

    Raises Refused for settings that do not fit one another, for images or a model that cannot be read, and for a model
    that makes images of another shape than the data.
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
    foreign = _foreign(settings, run) if settings.model else None
    images = _loaded("data", settings, foreign)
    others = _loaded("held_out", settings, foreign) if settings.held_out else None
    if others and others.images.shape[1:] != images.images.shape[1:]:
        shapes = (" x ".join(map(str, one.images.shape[1:])) for one in (images, others))
        raise Refused("data has images of {}, and held_out of {}: give images of one kind".format(*shapes))
    return Sources(images, others, foreign)


def dealt(sources: Sources, settings: Settings, run: Run) -> World:
    """The four parts of the images, dealt by the run's seed. Raises Refused for images that are too few."""
    images, others, foreign = sources
    try:
        parts = data.audit_split(images, settings.n_train, settings.half, run.seed, others, reference=settings.latent)
    except Refused as error:
        given = {"data": settings.data, "held_out": settings.held_out, "n_train": settings.n_train}
        raise Refused(f"{', '.join(f'{k} = {v}' for k, v in given.items() if v)}: {error}") from None
    members, calibration = len(parts["members"]), len(parts["calibration"])
    if members < 2 or len(parts["reference"]) < 2 or calibration < CALIBRATION:
        raise Refused(
            f"{calibration} calibration images set no thresholds, or {members} members are too few: data = "
            f"{settings.held_out or settings.data} must leave {CALIBRATION} and 2, so give more distinct images"
            + (f", or n_train below {members}" if members > 2 else "")
        )
    return _world(settings, run, images, parts, foreign is not None)


def _foreign(settings: Settings, run: Run) -> adapters.Discrete:
    """The foreign model. Raises Refused for one that this study cannot attack."""
    model = adapters.from_diffusers(settings.model, device=run.device)
    if getattr(model.net, "class_embedding", None) is not None:
        raise Refused(f"model={settings.model!r} wants a class label, and this study gives none: give one without")
    return model


def _loaded(name: Literal["data", "held_out"], settings: Settings, foreign: adapters.Discrete | None) -> Images:
    """The images of a source, in the shape that the model makes. Raises Refused for another one."""
    source = getattr(settings, name)
    shape = foreign.shape if foreign else None
    kind = source.partition(":")[0]
    native = 16 if shape is None else shape[-1]
    if kind == "digits" or (shape and shape[1] != shape[2]):  # such images are taken as they are
        native = None
    images = data.load(source, settings.size or native)
    if shape and (found := tuple(images.images.shape[1:])) != shape:
        _, high, wide = shape
        raise Refused(
            f"the model makes images {shape}, {name} has {found}: give the data it was trained on"
            + (f", as files of {high} x {wide} pixels" if high != wide else "")
            + (f", or leave size={settings.size} out" if settings.size else "")
        )
    return images


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
        labels = partition(known, max(2, len(members) // 5), run.seed)
        classes, fresh_labels = int(labels.max()) + 1, None
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


_latents = recent(features.latents)  # an attack asks seven times, and each fit is a decomposition of the reference


def coders(world: World) -> tuple[Embed, Embed]:
    """Encode and decode: images (N, C, H, W) to what the model works on, (N, *S), and back.

    Principal components of the reference, pixels minus its mean, or pixels as they are. Nothing about members or
    non-members enters.
    """
    if world.coordinates == "principal":
        return _latents(world.reference, world.latent)
    centre = world.reference.mean(0) if world.coordinates == "centred" else 0

    def encode(images: Tensor) -> Tensor:
        return images - centre

    def decode(z: Tensor) -> Tensor:
        return z + centre

    return encode, decode
