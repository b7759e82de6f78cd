"""The audit from one end to the other."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memlib import data, features
from memlib.audit import copies, extraction, kept, members, sources, verdict
from memlib.audit import data as looking
from memlib.audit.report import Report
from memlib.cache import fingerprint
from memlib.data import Images
from memlib.errors import Refused, usable
from memlib.stored import Rows, choose, coloured


@dataclass(frozen=True)
class _Sets:
    train: Images
    held_out: Images | None
    what: Any


def audit(
    what: Any,
    train: Any,
    held_out: Any = None,
    out: str | Path | None = "report",
    *,
    samples: int = 1000,
    budget: float | None = None,
    steps: int = 50,
    size: int | None = None,
    label: int | None = None,
    vae: str | Path | None = None,
    sigma_data: float | None = None,
    descriptor: str = "auto",
    extract: bool = False,
    pictures: bool = True,
    seed: int = 0,
    device: str = "cpu",
) -> Report:
    """Find what a model, or the images that it made, remembers of its training images, and write a report.

    Arguments:
        what: a folder of images that were made; a diffusers folder or a name on the hub; a `Model`; `Images`.
        train: the images that the model was trained on: a folder, a source of `data.load`, or `Images`. Folders are
            read once and stay on disk, so they may be larger than memory.
        held_out: images of the same source that it never saw; they set thresholds, and membership needs them. Copies
            of training images among them are left out.
        out: the folder of the report; None writes nothing.
        samples: drawn from a model, at most.
        budget: seconds after which no further samples are drawn; None for no limit.
        steps: of sampling.
        size: all images are resampled to (size, size); a model says its own.
        label: the class of a class-conditional model.
        vae: the folder of the autoencoder of a model of latents; None for that in `vae` or `vqvae` of its folder.
            Samples are judged as decoded images, and membership on the modes of encoded ones.
        sigma_data: of a network in EDM's preconditioning; None for what its scheduler says.
        descriptor: see `copies.describe`.
        extract: guide the model to training images too (SIDE).
        pictures: whether the report shows images.
        seed: of samples, of the parts of the held-out images and of all noise.
        device: where the model and a descriptor run.

    Returns:
        The report, as it was written.

    Raises:
        Refused: for images that cannot be read or compared, and for a model that cannot be loaded.
    """
    if samples < 1 or (budget is not None and not budget > 0):
        raise Refused(f"an audit draws 1 sample or more in a positive time, not {samples} in {budget} seconds")
    with usable(device):
        torch.empty(0, device=device)
    given = sources.read(
        what, size=size, steps=steps, label=label, vae=vae, sigma_data=sigma_data, device=device
    )  # fmt: skip
    sets = _read(given, train, held_out, size)
    real = sets.train.images
    beyond = None if sets.held_out is None else sets.held_out.images
    found = looking.look(real, beyond, seed)
    kept_out = None if beyond is None else choose(beyond, found.kept)
    model = sets.what if isinstance(sets.what, sources.Model) else None
    made, key = _made(sets.what, samples, seed, budget, device)
    parts = copies.deal(0 if kept_out is None else len(kept_out), seed, descriptor)
    reference = real[:0] if kept_out is None else kept_out[parts.reference]
    name, embed = copies.describe(descriptor, real, reference, device)
    embed = _by_shards(embed, name, descriptor, reference)
    judged = copies.judge(made, real, found.group, kept_out, parts, embed)
    member = None
    if model is not None and kept_out is not None:
        member = members.infer(model, real, found.distinct, kept_out, seed, device)
    guided = None
    if extract:
        if model is None:
            raise Refused("extraction guides a model, and WHAT is a set of images: give the model itself")
        guided = extraction.extract(model, made, real, found.group, judged, embed, seed=seed, device=device)
    told = verdict.say(found, judged, member, guided, model=model is not None, n=len(real))
    report = Report(
        data=found,
        copies=judged,
        members=member,
        extraction=guided,
        verdict=told,
        files=sources.files(train, sets.train),
        provenance={
            "what": {"source": str(getattr(sets.what, "source", what)), "sha256": key},
            "train": {"source": sets.train.source, "sha256": sets.train.fingerprint, "n": len(real)},
            "held_out": sets.held_out
            and {"source": sets.held_out.source, "sha256": sets.held_out.fingerprint, "n": len(sets.held_out)},
            "settings": {
                "samples": len(made), "steps": steps, "size": size, "label": label,
                "vae": None if vae is None else str(vae), "sigma_data": sigma_data, "descriptor": name, "seed": seed,
                "device": device, "budget": budget,
            },
        },
    )  # fmt: skip
    if out is not None:
        report.write(out, images=(made, real, kept_out) if pictures else None)
    return report


def _read(found: sources.Model | Images, train: Any, held_out: Any, size: int | None) -> _Sets:
    """The three sets at one size, with three channels where any has colour."""
    if isinstance(found, sources.Model):
        channels, high, wide = found.image_shape
        if high != wide:
            raise Refused(f"the model makes images of {high}x{wide} pixels, and square ones can be audited")
        size = high
    real = _images(train, size, "train")
    beyond = None if held_out is None else _images(held_out, size, "held_out")
    if beyond is not None and beyond.fingerprint == real.fingerprint:
        raise Refused(f"the held-out images are the training images, {real.source}: give images that it never saw")
    others = [one for one in (real, beyond, found) if isinstance(one, Images)]
    coloured = max(one.images.shape[1] for one in others)
    if isinstance(found, sources.Model):
        if channels == 1 and coloured == 3:
            raise Refused("the model makes images without colour, and the training images have colour: convert them")
        coloured = channels
    if len(shapes := {tuple(one.images.shape[2:]) for one in others}) > 1:
        told = " and ".join(f"{high}x{wide}" for high, wide in sorted(shapes))
        raise Refused(f"images of {told} pixels cannot be compared: give a size to resample them to, --size 64")
    return _Sets(
        _coloured(real, coloured),
        None if beyond is None else _coloured(beyond, coloured),
        _coloured(found, coloured) if isinstance(found, Images) else found,
    )


def _images(source: Any, size: int | None, name: str) -> Images:
    if isinstance(source, Images):
        return source
    text, place = str(source), Path(str(source)).expanduser()
    if text.partition(":")[0] in data.SOURCES and ":" in text:
        return data.load(text, size, stored=True)
    if not place.is_dir():
        raise Refused(f"there is no folder of images at {text!r} ({name}): check the path")
    return data.load(place, size, stored=True)


def _coloured(images: Images, channels: int) -> Images:
    if images.images.shape[1] == channels:
        return images
    return replace(images, images=coloured(images.images, channels))


def _made(what: Any, n: int, seed: int, budget: float | None, device: str) -> tuple[Rows, str]:
    """The samples (N, C, H, W), and the hash of what made them."""
    if isinstance(what, sources.Model):
        return kept.draw(what, n, seed, budget, device)[0], kept.name_of(what)
    return what.images, what.fingerprint


def _by_shards(embed: features.Embed, name: str, descriptor: str, reference: Tensor) -> features.Embed:
    """The same embedder, whose results for a set of images are kept by shards where they are slow: not pixels."""
    if name == "pixels":
        return embed
    names = (descriptor, fingerprint(reference))

    def kept_rows(images: Rows) -> Tensor:
        return kept.rows(
            "features", lambda positions: embed(images[positions]).float().cpu(), len(images), images, names
        )

    return kept_rows
