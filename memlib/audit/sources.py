"""What can be audited: a set of images, or a model that samples are drawn from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memlib import adapters, data
from memlib.data import Images, folder
from memlib.denoiser import Denoiser
from memlib.errors import Refused

_PIXELS = 2**20  # of the images that are encoded or decoded at once


@dataclass(frozen=True)
class Model:
    """A model to audit.

    Attributes:
        denoiser: D(x, sigma), (B, *S) -> (B, *S).
        shape: (C, H, W) of what it denoises, images or latents.
        sigmas: levels to sample on (n + 1,), decreasing, then 0.
        levels: all levels that it was trained on (T,), decreasing; None for any level between those of `sigmas`.
        limit: applied to estimates of x0 while sampling; None for nothing.
        source: where it comes from, in words.
        vae: the autoencoder of a model of latents; None for a model of images.
    """

    denoiser: Denoiser
    shape: tuple[int, int, int]
    sigmas: Tensor
    levels: Tensor | None = None
    limit: Callable[[Tensor], Tensor] | None = None
    source: str = "a model in memory"
    vae: adapters.Autoencoder | None = None

    def __post_init__(self) -> None:
        if self.vae is not None and self.vae.latent_channels != self.shape[0]:
            raise Refused(
                f"the model denoises {self.shape[0]} channels and the autoencoder has {self.vae.latent_channels} of "
                "latents: give the autoencoder that it was trained with"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that it makes."""
        if self.vae is None:
            return self.shape
        _, high, wide = self.shape
        return self.vae.channels, self.vae.factor * high, self.vae.factor * wide

    def images(self, points: Tensor) -> Tensor:
        """The images (B, C, H, W) in [-1, 1] of what it denoises (B, *S), on its device."""
        return self._each(None if self.vae is None else self.vae.decode, points).clamp(-1, 1)

    def points(self, images: Tensor) -> Tensor:
        """What it denoises, (B, *S), of images (B, C, H, W): themselves, or the modes of their posteriors."""
        return self._each(None if self.vae is None else self.vae.encode, images)

    def _each(self, call: Callable[[Tensor], Tensor] | None, rows: Tensor) -> Tensor:
        """The call on few rows at a time: an autoencoder needs gigabytes for an image of 1,024 pixels."""
        if call is None:
            return rows
        _, high, wide = self.image_shape
        with torch.no_grad():
            return torch.cat([call(some) for some in rows.split(max(1, _PIXELS // (high * wide)))])

    def level(self, sigma: float) -> float:
        """The level nearest to sigma that the model knows."""
        known = self.sigmas if self.levels is None else self.levels
        known = known[known > 0].double()
        if self.levels is None:
            return float(min(max(sigma, float(known.min())), float(known.max())))
        return float(known[(known.log() - torch.tensor(sigma).log()).abs().argmin()])

    @property
    def lowest(self) -> float:
        """The lowest level above 0 that the model knows."""
        known = self.sigmas if self.levels is None else self.levels
        return float(known[known > 0].min())


def read(
    what: Any,
    *,
    size: int | None = None,
    steps: int = 50,
    label: int | None = None,
    vae: str | Path | None = None,
    sigma_data: float | None = None,
    device: str = "cpu",
) -> Model | Images:
    """The model or the images that `what` names.

    Arguments:
        what: a `Model`, `Images`, a folder of images, a source of `data.load` (`kind:PLACE`), a diffusers folder, or
            the name of a model on the hub.
        size: images are resampled to (size, size).
        steps: of sampling from a model.
        label: the class of a class-conditional model.
        vae: the folder of the autoencoder of a model of latents; None for that in `vae` or `vqvae` of its folder.
        sigma_data: of a model in EDM's preconditioning; None for what its scheduler says.
        device: of a model.

    Raises:
        Refused: for a `what` that is none of these, and as the readers do.
    """
    if isinstance(what, Model | Images):
        return what
    text, place = str(what), Path(str(what)).expanduser()
    if text.partition(":")[0] in data.SOURCES and ":" in text:
        return data.load(text, size, stored=True)
    if place.is_dir():
        if any((place / name).exists() for name in ("model_index.json", "config.json", "unet", "scheduler")):
            return _diffusers(text, steps, label, vae, sigma_data, device)
        if vae is not None or sigma_data is not None:
            raise Refused(f"{text!r} is a folder of images: an autoencoder and a sigma_data belong to a model")
        return data.load(place, size, stored=True)
    if place.exists():
        raise Refused(f"{text!r} is a file: give a folder of images or of a model")
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return _diffusers(text, steps, label, vae, sigma_data, device)
    raise Refused(f"there is nothing at {text!r}: give a folder of images, or the folder of a diffusers model")


def files(source: Any, images: Images) -> list[str]:
    """The path of each image in its folder; its number where it does not come from a folder of its own."""
    place = Path(str(source)).expanduser()
    if not isinstance(source, Images) and place.is_dir() and not images.skipped:
        found, _, _ = folder.classes(place)
        if len(found) == len(images):
            return found
    return [str(number) for number in range(len(images))]


def _diffusers(
    place: str, steps: int, label: int | None, vae: str | Path | None, sigma_data: float | None, device: str
) -> Model:
    net, beside = _parts(place)
    vae = beside if vae is None else vae
    edm = sigma_data is not None or adapters.is_edm(net)
    found: adapters.Edm | adapters.Discrete
    if edm:
        found = adapters.from_edm(net, sigma_data, device=device)
    else:
        found = adapters.from_diffusers(net, device=device, between="interpolate")
    if found.shape is None:
        raise Refused(f"{place!r} does not say how large its images are: give its sample_size in config.json")
    conditional = getattr(found.net, "class_embedding", None) is not None
    if conditional and label is None:
        raise Refused(f"the model at {place!r} is class-conditional: give the label to audit, --label 0")
    if label is not None and not conditional:
        raise Refused(f"the model at {place!r} knows no labels: leave out --label {label}")
    denoiser: Denoiser = partial(found, y=label) if label is not None else found
    coder = None if vae is None else adapters.from_vae(vae, device=device)
    source = f"diffusers:{place}"
    if isinstance(found, adapters.Edm):
        return Model(denoiser, found.shape, found.grid(max(2, steps)), source=source, vae=coder)
    sigmas = found.grid(min(steps, len(found.sigmas) - 1))
    return Model(denoiser, found.shape, sigmas, found.sigmas[:-1], found.limit, source, coder)


def _parts(place: str) -> tuple[str, Path | None]:
    """The folder of the network, and that of its autoencoder, if it lies in the folder of the same pipeline."""
    root = Path(place).expanduser()
    beside = [root / name for name in ("vae", "vqvae") if (root / name).is_dir()]
    if beside and (root / "unet").is_dir():
        return str(root / "unet"), beside[0]
    return place, None


def weights_of(denoiser: Any) -> nn.Module | None:
    """The network behind a denoiser, or None for one without trainable weights."""
    inner = denoiser.func if isinstance(denoiser, partial) else denoiser
    if isinstance(inner, nn.Module) and any(one.requires_grad for one in inner.parameters()):
        return inner
    return None
