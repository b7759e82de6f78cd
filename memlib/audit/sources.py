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


@dataclass(frozen=True)
class Model:
    """A model to audit.

    Attributes:
        denoiser: D(x, sigma), (B, *S) -> (B, *S).
        shape: (C, H, W) of the images that it makes.
        sigmas: levels to sample on (n + 1,), decreasing, then 0.
        levels: all levels that it was trained on (T,), decreasing; None for any level between those of `sigmas`.
        limit: applied to estimates of x0 while sampling; None for nothing.
        source: where it comes from, in words.
    """

    denoiser: Denoiser
    shape: tuple[int, int, int]
    sigmas: Tensor
    levels: Tensor | None = None
    limit: Callable[[Tensor], Tensor] | None = None
    source: str = "a model in memory"

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
    what: Any, *, size: int | None = None, steps: int = 50, label: int | None = None, device: str = "cpu"
) -> Model | Images:
    """The model or the images that `what` names.

    Arguments:
        what: a `Model`, `Images`, a folder of images, a source of `data.load` (`kind:PLACE`), a diffusers folder, or
            the name of a model on the hub.
        size: images are resampled to (size, size).
        steps: of sampling from a model.
        label: the class of a class-conditional model.
        device: of a model.

    Raises:
        Refused: for a `what` that is none of these, and as the readers do.
    """
    if isinstance(what, Model | Images):
        return what
    text, place = str(what), Path(str(what)).expanduser()
    if text.partition(":")[0] in data.SOURCES and ":" in text:
        return data.load(text, size)
    if place.is_dir():
        if any((place / name).exists() for name in ("model_index.json", "config.json", "unet", "scheduler")):
            return _diffusers(text, steps, label, device)
        return data.load(place, size)
    if place.exists():
        raise Refused(f"{text!r} is a file: give a folder of images or of a model")
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return _diffusers(text, steps, label, device)
    raise Refused(f"there is nothing at {text!r}: give a folder of images, or the folder of a diffusers model")


def files(source: Any, images: Images) -> list[str]:
    """The path of each image in its folder; its number where it does not come from a folder of its own."""
    place = Path(str(source)).expanduser()
    if not isinstance(source, Images) and place.is_dir() and not images.skipped:
        found, _, _ = folder.classes(place)
        if len(found) == len(images):
            return found
    return [str(number) for number in range(len(images))]


def _diffusers(place: str, steps: int, label: int | None, device: str) -> Model:
    found = adapters.from_diffusers(place, device=device, between="interpolate")
    if found.shape is None:
        raise Refused(f"{place!r} does not say how large its images are: give its sample_size in config.json")
    conditional = getattr(found.net, "class_embedding", None) is not None
    if conditional and label is None:
        raise Refused(f"the model at {place!r} is class-conditional: give the label to audit, --label 0")
    denoiser: Denoiser = partial(found, y=label) if label is not None else found
    sigmas = found.grid(min(steps, len(found.sigmas) - 1))
    return Model(denoiser, found.shape, sigmas, found.sigmas[:-1], found.limit, f"diffusers:{place}")


def weights_of(denoiser: Any) -> nn.Module | None:
    """The network behind a denoiser, or None for one without trainable weights."""
    inner = denoiser.func if isinstance(denoiser, partial) else denoiser
    if isinstance(inner, nn.Module) and any(one.requires_grad for one in inner.parameters()):
        return inner
    return None
