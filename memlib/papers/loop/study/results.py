"""What the study finds, in plain tensors on the CPU. No image is among it."""

from dataclasses import dataclass

import torch
from torch import Tensor

ATTACKS = ("blind", "own", "aimed")  # not guided; by labels of a model's own samples; by labels of public images


@dataclass(frozen=True)
class Arm:
    """T models after one way of unlearning.

    Attributes:
        samples: S, drawn from each model.
        copies, relearned: (T, N), how many of the samples copy each image; before and after relearning.
        others: (T, N), forgotten images that were not shown for relearning.
        restored: (T,), forgotten images that come back from a noisy view, as a fraction.
        precision, distance, loss: (T,), the quality of samples, and the denoising loss of held-out images.
        hits: (T, N), what LiRA takes for members; shadows were not unlearned.
        area: (T,), LiRA's area, forgotten images against images that the model never saw.
        revealed: (T,), the area of the change of the loss since the original, forgotten against other members.
        steered: (T, N), the fraction of samples that copy each image, by attack (`ATTACKS`); empty if none was run.
    """

    samples: int
    copies: Tensor
    relearned: Tensor
    others: Tensor
    restored: Tensor
    precision: Tensor
    distance: Tensor
    loss: Tensor
    hits: Tensor
    area: Tensor
    revealed: Tensor
    steered: dict[str, Tensor]

    def share(self, gone: Tensor) -> Tensor:
        """Samples that copy a forgotten image, as a fraction, (T,)."""
        return (self.copies * gone).sum(1).double() / self.samples

    def share_steered(self, attack: str, gone: Tensor) -> Tensor:
        """The same among the samples of an attack, (T,)."""
        return (self.steered[attack].double() * gone).sum(1)

    def distinct_steered(self, attack: str, gone: Tensor) -> Tensor:
        """Forgotten images that these copy at least once, (T,)."""
        return (gone & (self.steered[attack] > 0)).sum(1)

    def distinct(self, gone: Tensor) -> Tensor:
        """Forgotten images that are copied at least once, (T,)."""
        return (gone & (self.copies > 0)).sum(1)

    def share_relearned(self) -> Tensor:
        """Samples that copy a forgotten image that was not shown, after relearning, as a fraction, (T,)."""
        return (self.relearned * self.others).sum(1).double() / self.samples

    def share_before(self) -> Tensor:
        """The same images before relearning, (T,)."""
        return self.share(self.others)


@dataclass(frozen=True)
class Loop:
    """C1, C1b, one kind of forgetting: the arms by name, and what each model was asked to forget, (T, N)."""

    gone: Tensor
    inside: Tensor
    arms: dict[str, Arm]


@dataclass(frozen=True)
class Curve:
    """One way to train, (L, T) at each look; see `rounds.trained`."""

    chosen: Tensor
    quality: Tensor
    share: Tensor

    def stopped(self) -> tuple[Tensor, Tensor]:
        """Precision and share of copies of each model at the look that it would be stopped at, (T,) each."""
        at = self.chosen.argmax(0, keepdim=True)
        return self.quality.gather(0, at)[0], self.share.gather(0, at)[0]


@dataclass(frozen=True)
class Practices:
    """C2b: the curve of each practice by name, the usual training first, judged at `looks`."""

    looks: tuple[int, ...]
    curves: dict[str, Curve]


@dataclass(frozen=True)
class Frontier:
    """C2: by learning rate, (L, T) at each look; see `rounds.trained`. The claim compares `large` with `usual`."""

    usual: float
    large: float
    looks: tuple[int, ...]
    chosen: dict[float, Tensor]
    quality: dict[float, Tensor]
    share: dict[float, Tensor]

    def stopped(self, rate: float) -> tuple[Tensor, Tensor]:
        """Precision and share of copies of each model at the look that it would be stopped at, (T,) each."""
        return Curve(self.chosen[rate], self.quality[rate], self.share[rate]).stopped()


@dataclass(frozen=True)
class Results:
    """What was measured; None for groups that were not run."""

    description: str
    loop: dict[str, Loop] | None = None
    frontier: Frontier | None = None
    practices: Practices | None = None


def by_pair(values: Tensor) -> list[float]:
    """The mean of each pair of complements, of (T,) values: the pair is the unit."""
    return torch.as_tensor(values).double().unflatten(0, (-1, 2)).mean(1).tolist()


def counted(of: Tensor, images: int) -> Tensor:
    """How many samples copy each of N images, (T, N), from the image that each copies, or -1, (T, S)."""
    counts = torch.zeros(len(of), images + 1, dtype=torch.int32, device=of.device)
    return counts.scatter_add_(1, of % (images + 1), torch.ones_like(of, dtype=torch.int32))[:, :images]
