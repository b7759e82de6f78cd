"""Time-dependent knowledge distillation (SIDE sec. 3.3.2): a teacher of clean images, a student of noisy ones.

The teacher is trained on clean, labelled, real images. The student is trained on the images of a `Surrogate` alone.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from memlib import train
from memlib.errors import Refused
from memlib.noise import add_noise, as_level, lognormal, noise_from
from memlib.papers.side.surrogates import Surrogate
from memlib.random import choose


def teach(
    teacher: nn.Module,
    images: Tensor,
    labels: Tensor,
    steps: int = 600,
    *,
    batch: int = 64,
    lr: float = 5e-3,
    seed: int = 0,
    checkpoint: str | Path | None = None,
) -> nn.Module:
    """Train a time-independent classifier on clean images by cross-entropy.

    Arguments:
        images: real images, (N, *S).
        labels: of the images, (N,).
        checkpoint: see `train.fit`.

    Returns:
        The teacher, in evaluation mode.

    Raises:
        Refused: for a classifier with time, which would learn a single level.
    """
    if teacher.time:
        raise Refused("a teacher sees clean images alone: build its network with time=False")

    every = torch.arange(len(images), device=images.device)

    def loss(teacher: nn.Module, generator: torch.Generator) -> Tensor:
        rows = choose(every, batch, generator)
        return cross_entropy(teacher(images[rows], images.new_zeros(())), labels[rows])

    for _ in train.fit(teacher, loss, steps, lr=lr, seed=seed, checkpoint=checkpoint, title="teacher"):
        pass
    return teacher.eval()


def tdkd(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(p(y|x) || p^t(y|x_t)), (B,), of targets p (B, K) for the clean x and logits (B, K) for the noisy. SIDE eq. 11.

    A temperature T other than 1 softens both, p^(1/T) and softmax(logits / T), and multiplies the loss by T^2, which
    keeps the size of the gradient (Hinton et al. 2015, sec. 2.1). The minimiser is the same; small probabilities count
    more.
    """
    if temperature != 1:
        targets = (targets.log() / temperature).softmax(1)
    negentropy = torch.special.xlogy(targets, targets).sum(1)
    return temperature**2 * (cross_entropy(logits / temperature, targets, reduction="none") + negentropy)


def distil(
    student: nn.Module,
    surrogate: Surrogate,
    steps: int = 600,
    *,
    batch: int = 64,
    lr: float = 5e-3,
    levels: tuple[float, float] = (0.0, 1.4),
    temperature: float = 1.0,
    seed: int = 0,
    checkpoint: str | Path | None = None,
) -> nn.Module:
    """Time-dependent knowledge distillation: train `student` on the images (N, *S) of a surrogate.

    A student with time sees noisy images. A student without time sees clean ones, which is the meaning of
    "time-independent" in SIDE sec. 4.2. In both cases the target is the label of the clean image. The paper trains with
    AdamW at 1e-4 and does not say how long; here it is Adam, with a learning rate that falls along a cosine.

    Arguments:
        levels: mean and standard deviation of ln sigma.
        temperature: see `tdkd`.
        checkpoint: see `train.fit`; each surrogate needs its own.

    Returns:
        The student, in evaluation mode.

    Raises:
        Refused: for a student with time where the arm has none, and the reverse.
    """
    if ("-TD" in surrogate.arm and not student.time) or ("-TI" in surrogate.arm and student.time):
        raise Refused(f"the arm {surrogate.arm} needs a student made with time={not student.time}")
    images, targets = surrogate.images, surrogate.targets

    every = torch.arange(len(images), device=images.device)

    def loss(student: nn.Module, generator: torch.Generator) -> Tensor:
        rows = choose(every, batch, generator)
        x = images[rows].to(targets.device)
        sigma = x.new_zeros(())
        if student.time:
            sigma = as_level(lognormal(batch, *levels, generator), x)
            x = add_noise(x, sigma, noise_from(generator))
        return tdkd(student(x, sigma), targets[rows], temperature).mean()

    for _ in train.fit(student, loss, steps, lr=lr, seed=seed, checkpoint=checkpoint, title=f"distil {surrogate.arm}"):
        pass
    return student.eval()
