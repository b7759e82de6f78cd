"""The image tasks: which images are to be forgotten, judges of what is generated, and the level where they part."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from memlib import analytic, data, features, noise
from memlib.data.images import listed_classes
from memlib.errors import Refused
from memlib.features import ClassifierFeatures
from memlib.papers.sgu.study.settings import Settings
from memlib.run import Run

_SURE = 0.95  # probability above which a judge is sure
_STRANGE = 0.01  # fraction of real test images that count as noise-like
_WIDTH = 16  # channels of a judge's first convolution


@dataclass(frozen=True)
class Parts:
    """The images of a task: a training and a test set from one half of a source."""

    name: str
    source: str
    wanted: tuple[int, ...]  # labels to be forgotten
    train: Tensor  # (N, C, H, W)
    labels: Tensor  # (N,)
    test: Tensor  # (T, C, H, W)
    test_labels: Tensor  # (T,)
    names: tuple[str, ...]  # of the labels
    beside: tuple[Tensor, Tensor] | None = None  # another label, 0 or 1, of the same images: (N,), (T,)

    def forgotten(self, labels: Tensor) -> Tensor:
        """Whether a label is among those to be forgotten, (N,) -> (N,)."""
        return torch.isin(labels, torch.tensor(self.wanted, device=labels.device))

    def describe(self) -> str:
        """Source and number of images, in one line."""
        shape = " x ".join(str(side) for side in self.train.shape[1:])
        lost, gone = int(self.forgotten(self.labels).sum()), int(self.forgotten(self.test_labels).sum())
        return (
            f"{self.name}: {self.source}, {shape}; {len(self.train)} training images ({lost} to forget), "
            f"{len(self.test)} test ({gone})"
        )


@dataclass(frozen=True)
class Task:
    """A task as networks see it: coordinates of the training images, and a judge for what is generated.

    An MLP works on the pixels less their mean, or on principal components where pixels are many; a U-Net on pixels.
    """

    name: str
    z: Tensor  # coordinates of the training images, (N, *S)
    forget: Tensor  # whether each is to be forgotten, (N,)
    mean: Tensor  # (C, H, W)
    basis: Tensor | None  # principal components (K, C H W), or None for pixels
    test: Tensor  # (T, C, H, W)
    test_labels: Tensor  # (T,)
    test_forget: Tensor  # (T,)
    wanted: tuple[int, ...]
    names: tuple[str, ...]
    judge: ClassifierFeatures
    features: Tensor  # the judge's features of the test images, (T, D)
    beside: ClassifierFeatures | None  # the judge of another label of the same images
    test_beside: Tensor | None  # that label, (T,)
    rough: float  # the roughness that 1 % of real test images exceed, as far as coordinates show them
    levels: Tensor  # (L,)
    posterior: Tensor  # how surely a noised forget image is one, at each level, (L,)
    sigma_star: float  # the level at which half of that certainty is lost

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> coordinates (N, *S)."""
        return _encoded(images, self.mean, self.basis)

    def decode(self, z: Tensor) -> Tensor:
        """Coordinates (N, *S) -> images (N, C, H, W)."""
        if self.basis is None:
            return z + self.mean.to(z)
        return (z @ self.basis.to(z)).unflatten(1, self.mean.shape) + self.mean.to(z)

    def answers(self, seen: Tensor) -> Tensor:
        """The judge's labels of images of which it saw the features (N, D), (N,)."""
        return self.judge.head(seen).argmax(1)

    def found(self, seen: Tensor) -> Tensor:
        """Whether the judge finds forgotten content in images of which it saw the features (N, D), (N,)."""
        return torch.isin(self.answers(seen), torch.tensor(self.wanted, device=seen.device))

    def sure(self, seen: Tensor) -> Tensor:
        """Whether it gives such content a probability above .95, (N, D) -> (N,)."""
        return self.judge.head(seen).softmax(1)[:, list(self.wanted)].sum(1) > _SURE

    def noisy(self, images: Tensor) -> Tensor:
        """Whether images (N, C, H, W) are noise-like, (N,): rougher in their upper half than 99 % of real ones are."""
        return roughness(images) > self.rough

    def judged_by(self, other: "Task") -> "Task":
        """This task with the judge of another one."""
        return replace(self, judge=other.judge, features=other.judge.embed(self.test))


def roughness(images: Tensor) -> Tensor:
    """Mean squared difference of a pixel from the mean of its four neighbours, upper half, (N, C, H, W) -> (N,)."""
    inner, rows = images[:, :, 1:-1, 1:-1], images.shape[-2] // 2
    around = images[:, :, :-2, 1:-1] + images[:, :, 2:, 1:-1] + images[:, :, 1:-1, :-2] + images[:, :, 1:-1, 2:]
    return (inner - around / 4)[:, :, :rows].square().mean((1, 2, 3))


def load(settings: Settings, run: Run) -> dict[str, Parts]:
    """The images of the main task and, where there are such, of the far and the control task, by name.

    Raises:
        Refused: for a source that cannot be read, and for labels that leave nothing to forget or nothing to retain.
    """
    parts = {"main": _load("main", settings.data, settings.forget, settings, run)}
    drawn = [source.partition(":")[0] == "faces" for source in (settings.data, settings.beside)]
    if settings.beside and drawn != [False, True]:  # the default says nothing of a reader's own images
        other = _load("beside", settings.beside, (1,), settings, run)
        if not torch.equal(other.train, parts["main"].train):
            raise Refused(f"{settings.beside} has other images than {settings.data}: give the same ones, other labels")
        parts["main"] = replace(parts["main"], beside=(other.labels, other.test_labels))
    if settings.far:
        parts["far"] = _load("far", settings.far, settings.forget, settings, run)
    if settings.control:
        parts["control"] = _load("control", settings.control, settings.control_forget, settings, run)
    return parts


def judge_calls(parts: Parts, settings: Settings, run: Run) -> dict[str, tuple[Any, ...]]:
    """The calls that train the judges of a task: of its labels, and of the other label where there is one."""
    every = {"labels": parts.labels} | ({"beside": parts.beside[0]} if parts.beside else {})
    how = settings.judge_steps, run.seed
    return {name: (trained_judge, parts.train, labels, *how) for name, labels in every.items()}


def trained_judge(images: Tensor, labels: Tensor, steps: int, seed: int) -> dict[str, Tensor]:
    """The weights of a classifier of real images (N, C, H, W) with labels (N,), in the dtype of the images."""
    return dict(features.classifier(images, labels, steps=steps, width=_WIDTH, seed=seed).state_dict())


def prepare(parts: Parts, judges: Mapping[str, dict[str, Tensor]], settings: Settings) -> Task:
    """Choose the coordinates and find sigma*.

    `judges` are the results of `judge_calls`: the weights of each judge by name, of which `head.bias` is (K,).
    """
    x, mean, basis = parts.train, parts.train.mean(0), None
    if settings.network == "mlp" and x[0].numel() > settings.latent:
        mean, basis = _principal(x, settings.latent)
    z, forget = _encoded(x, mean, basis), parts.forgotten(parts.labels)
    levels, posterior, sigma_star = parting_level(z, forget)
    judge, beside = _judge(x, judges["labels"]), None
    if parts.beside:
        beside = _judge(x, judges["beside"])
    task = Task(
        name=parts.name, z=z, forget=forget, mean=mean, basis=basis,
        test=parts.test, test_labels=parts.test_labels, test_forget=parts.forgotten(parts.test_labels),
        wanted=parts.wanted, names=parts.names, judge=judge, features=judge.embed(parts.test),
        beside=beside, test_beside=parts.beside[1] if parts.beside else None,
        rough=math.inf,
        levels=levels, posterior=posterior, sigma_star=sigma_star,
    )  # fmt: skip
    shown = task.decode(task.encode(task.test))
    return replace(task, rough=float(roughness(shown).quantile(1 - _STRANGE)))


def _judge(images: Tensor, weights: dict[str, Tensor]) -> ClassifierFeatures:
    """A judge of images like these; it answers in float32, whose convolutions are ten times as fast as in float64."""
    classes = len(weights["head.bias"])
    with torch.random.fork_rng():
        judge = ClassifierFeatures(images.shape[1], images.shape[-1], classes, _WIDTH)
    judge.load_state_dict(weights)
    return judge.to(images.device, torch.float32).eval().requires_grad_(False)


def parting_level(z: Tensor, forget: Tensor) -> tuple[Tensor, Tensor, float]:
    """Where the classes part, from the closed-form denoiser of the training set.

    Arguments:
        z: coordinates of the training images (N, *S).
        forget: whether each is to be forgotten (N,).

    Returns:
        Levels (L,); at each the posterior probability that a noised forget image is one, mean over 200 of them, (L,);
        and sigma*, the last level at which it is more than half-way between the forgotten fraction and certainty. Each
        image counts its own point, so with many coordinates and few images sigma* is where images part, not classes.
    """
    levels = torch.logspace(-1, 1.3, 32)
    memory, fraction, x0 = analytic.Empirical(z), forget.double().mean().cpu(), z[forget][:200]
    noised = [noise.add_noise(x0, sigma, noise.seeded(range(len(x0)))) for sigma in levels]
    posterior = [memory.posterior(x, sigma)[:, forget] for x, sigma in zip(noised, levels, strict=True)]
    sure = torch.stack([p.sum(1).mean() for p in posterior]).double().cpu()
    above = levels[sure > (1 + fraction) / 2]
    return levels, sure, float(above.max() if len(above) else levels[0])


def _load(name: str, source: str, classes: tuple[int | str, ...], settings: Settings, run: Run) -> Parts:
    """A task's images, split; or Refused."""
    stored = source.partition(":")[0] == "digits"  # at 8 pixels, and at no other size
    images = data.load(source, settings.size or (None if stored else 16))
    room = len(images) // 2  # a half
    n_train = min(settings.n_train, 2 * room // 3)
    if n_train < 1:
        raise Refused(f"{source} has {len(images)} images, and half of them are put aside: give more images")
    wanted = data.label_numbers(images, classes)
    cut = data.split(images, {"train": n_train, "test": room - n_train}, settings.half, run.seed, flexible="test")
    dtype = getattr(torch, settings.image_dtype)
    x, test = (cut[part].images.to(run.device, dtype) for part in ("train", "test"))
    labels, test_labels = (cut[part].labels.to(run.device) for part in ("train", "test"))
    parts = Parts(name, source, wanted, x, labels, test, test_labels, images.names)
    for part, forgotten in (("training", parts.forgotten(labels)), ("test", parts.forgotten(test_labels))):
        if forgotten.all() or not forgotten.any():
            kind = "retain" if forgotten.all() else "forget"
            raise Refused(
                f"among the {len(forgotten)} {part} images of {source} there is none to {kind}: check which labels are "
                f"to be forgotten, now {list(classes)}; {listed_classes(images)}"
            )
    return parts


def _encoded(images: Tensor, mean: Tensor, basis: Tensor | None) -> Tensor:
    centred = images - mean.to(images)
    return centred if basis is None else centred.flatten(1) @ basis.to(images).T


def _principal(images: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Mean (C, H, W) and components (k, C H W) of `features.latents`, in float64: a linear map from its values."""
    encode, decode = features.latents(images, k)
    wide = encode(images[:1]).shape[1]
    units = torch.eye(wide, dtype=torch.float64, device=images.device)
    mean = decode(torch.zeros_like(units[:1]))[0]
    return mean, (decode(units) - mean).flatten(1)
