"""How a completer is made to forget: the paper's method (eq. 10) and the four baselines of its appendix C.6.

Each is a loss of the model, a frozen copy of it, a retain and a forget batch, and returns its two terms image by image.
The mean of retain + alpha * forget is minimised, for the baselines too (the appendix says so before C.26, and prints
arg max in three places: see `vqgan.VQGAN.loss`). Every baseline has its retain term, as in the appendix. The paper's
method and Random Encoder move the encoder alone (eq. 10, C.35, C.36: argmin over theta), the others the decoder too.

Eq. 10 prints an unsquared norm of all codes at once; the authors' public code minimises mean squares, stage by stage.
Both readings are here: `li2024` and `random_encoder` as printed, `li2024_released` and `random_encoder_released` as in
the code. A norm has a kink at 0, and a square has none, so the two weigh the same alpha quite differently.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from memlib import train
from memlib.errors import Refused
from memlib.noise import Noise, noise_from
from memlib.random import choose

Codes = Tensor | tuple[Tensor, ...]
Terms = tuple[Tensor, Tensor]
Distance = Callable[[Codes, Codes], Tensor]
"""Two sets of codes (B, ...), of one stage or of several -> how far they lie apart, (B,)."""


class Completer(Protocol):
    """What the three families have in common; images are (B, C, H, W), a mask (H, W) or (B, 1, H, W)."""

    encoder: nn.Module
    decoder: nn.Module

    def inputs(self, images: Tensor, mask: Tensor, generator: torch.Generator) -> Any:
        """What the encoder is given for images (B, C, H, W) in training."""
        ...

    def initial_inputs(self, images: Tensor, mask: Tensor, generator: torch.Generator) -> Any:
        """What it is given for images (B, C, H, W) when a completion begins; no hidden pixel is used."""
        ...

    def with_noise(self, inputs: Any, noise: Tensor) -> Any:
        """The same with noise (B, C, H, W) as the content."""
        ...

    def with_hidden_noise(self, inputs: Any, noise: Tensor) -> Any:
        """The same with noise (B, C, H, W) as the content where the authors' code puts it."""
        ...

    def encode(self, inputs: Any) -> Codes:
        """Codes (B, ...), several where the encoder has several stages."""
        ...

    def loss(self, seen: Tensor, truth: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """The family's training loss, (B,), when T(seen) should become `truth`."""
        ...

    def loss_to_noise(self, seen: Tensor, noise: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """The family's training loss, (B,), when T(seen) should become noise (B, C, H, W)."""
        ...

    def complete(self, images: Tensor, mask: Tensor, noise: Noise = torch.randn_like) -> Tensor:
        """Images (B, C, H, W) with the hidden pixels filled in and the others untouched."""
        ...


class UnlearningBatch(NamedTuple):
    """What one step works on: retain and forget images, noise of their shape (B, C, H, W), and the mask."""

    retain: Tensor
    forget: Tensor
    noise: Tensor
    mask: Tensor


Loss = Callable[[Completer, Completer, UnlearningBatch, torch.Generator], Terms]
"""(model, frozen copy, batch, generator) -> the retain and the forget term, each (B,)."""


class Method:
    """A loss of your own, and what of the model it trains. It is called as its loss is.

    The parts belong to the method, since eq. 10 moves the encoder alone. A loss around that of another names them anew:
    `Method(mine, trains=li2024.trains)`.

    Arguments:
        loss: (model, frozen copy, batch, generator) -> two terms, each (B,).
        trains: names of parts of the model; everything else of it is frozen.
    """

    def __init__(self, loss: Loss, trains: tuple[str, ...]) -> None:
        self.loss, self.trains, self.__name__ = loss, trains, getattr(loss, "__name__", "unlearning")

    def __call__(
        self, model: Completer, frozen: Completer, batch: UnlearningBatch, generator: torch.Generator
    ) -> Terms:
        """The retain and the forget term, (B,) and (B,)."""
        return self.loss(model, frozen, batch, generator)


def trains(*parts: str) -> Callable[[Loss], Loss]:
    """Note on a loss, (B,) and (B,), what of the model it trains, as its attribute `trains`."""

    def noted(loss: Loss) -> Loss:
        loss.__dict__["trains"] = parts
        return loss

    return noted


def joint_norm(a: Codes, b: Codes) -> Tensor:
    """|a - b|_2, (B,), unsquared, of the stages of codes (B, ...) joined: as I2I eq. 10 and C.25 print it."""
    return torch.linalg.vector_norm(flatten_codes(a) - flatten_codes(b), dim=1)


def mean_square(a: Codes, b: Codes) -> Tensor:
    """The mean square of a - b, (B,), summed over the stages of codes (B, ...): as the authors' public code has it."""
    pairs = zip(_stages(a), _stages(b), strict=True)
    return torch.stack([(x - y).square().flatten(1).mean(1) for x, y in pairs]).sum(0)


def i2i(
    encode: Callable[[Any], Codes],
    frozen: Callable[[Any], Codes],
    retain: Any,
    forget: Any,
    target: Any,
    distance: Distance = joint_norm,
) -> Terms:
    """The distances of E(retain) from E0(retain) and of E(forget) from E0(target), each (B,). I2I eq. 10; C.25.

    Arguments:
        encode: the encoder in training, a function of the family's inputs.
        frozen: the original encoder, which gets no gradient.
        retain, forget: inputs of the family.
        target: the forget inputs with noise as the content.
        distance: `joint_norm`, as printed, or `mean_square`, as released.
    """
    with torch.no_grad():
        kept, noise = frozen(retain), frozen(target)
    return distance(encode(retain), kept), distance(encode(forget), noise)


@trains("encoder")
def li2024(model: Completer, frozen: Completer, batch: UnlearningBatch, generator: torch.Generator) -> Terms:
    """Send the codes of forget images to those of noise, (B,) and (B,), as printed: algorithm 1; C.25 for diffusion."""
    retain = model.inputs(batch.retain, batch.mask, generator)
    forget = model.inputs(batch.forget, batch.mask, generator)
    return i2i(model.encode, frozen.encode, retain, forget, model.with_noise(forget, batch.noise))


@trains("encoder")
def li2024_released(model: Completer, frozen: Completer, batch: UnlearningBatch, generator: torch.Generator) -> Terms:
    """Send the codes of forget images to those of noise, (B,) and (B,), by mean squares, as the public code does.

    For diffusion the noise takes the place of the hidden part of the noisy image alone.
    """
    retain = model.inputs(batch.retain, batch.mask, generator)
    forget = model.inputs(batch.forget, batch.mask, generator)
    target = model.with_hidden_noise(forget, batch.noise)
    return i2i(model.encode, frozen.encode, retain, forget, target, mean_square)


@trains("encoder", "decoder")
def max_loss(model: Completer, frozen: Completer, batch: UnlearningBatch, generator: torch.Generator) -> Terms:
    """Raise the training loss on forget images, (B,) and (B,): C.26-C.28. Unbounded below by itself."""
    return _taught(model, batch, batch.retain, generator), -_untaught(model, batch, batch.forget, generator)


@trains("encoder", "decoder")
def noisy_label(model: Completer, frozen: Completer, batch: UnlearningBatch, generator: torch.Generator) -> Terms:
    """Train the model to complete forget images to noise, (B,) and (B,): C.32-C.34."""
    lost = model.loss_to_noise(batch.forget, batch.noise, batch.mask, generator)
    return _taught(model, batch, batch.retain, generator), lost


@trains("encoder", "decoder")
def retain_label(model: Completer, frozen: Completer, batch: UnlearningBatch, generator: torch.Generator) -> Terms:
    """Train the model to complete forget images to retain images, (B,) and (B,): C.29-C.31 (C.31 prints n; its text
    says x_r)."""
    return _taught(model, batch, batch.retain, generator), _untaught(model, batch, batch.retain, generator)


@trains("encoder")
def random_encoder(model: Completer, frozen: Completer, batch: UnlearningBatch, generator: torch.Generator) -> Terms:
    """Send the codes of forget images to N(0, I), (B,) and (B,), as printed: C.35-C.36. It is noise in the space of
    codes, which the decoder need not know."""
    retain = model.inputs(batch.retain, batch.mask, generator)
    with torch.no_grad():
        kept = frozen.encode(retain)
    codes = flatten_codes(model.encode(model.inputs(batch.forget, batch.mask, generator)))
    return joint_norm(model.encode(retain), kept), joint_norm(codes, noise_from(generator)(codes))


@trains("encoder")
def random_encoder_released(
    model: Completer, frozen: Completer, batch: UnlearningBatch, generator: torch.Generator
) -> Terms:
    """Send the codes of forget images to Gaussian noise, (B,) and (B,), by mean squares, as the public code does.

    The noise has the mean and the deviation of the frozen encoder's codes of the same images, stage by stage.
    """
    retain = model.inputs(batch.retain, batch.mask, generator)
    forget = model.inputs(batch.forget, batch.mask, generator)
    with torch.no_grad():
        kept, before = frozen.encode(retain), _stages(frozen.encode(forget))
    aims = tuple(stage.mean() + stage.std() * noise_from(generator)(stage) for stage in before)
    return mean_square(model.encode(retain), kept), mean_square(model.encode(forget), aims)


def unlearn(
    model: nn.Module,
    method: Loss,
    retain: Tensor,
    forget: Tensor,
    mask: Callable[[torch.Generator], Tensor],
    noise: Callable[[int, torch.Generator], Tensor],
    *,
    vary: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    alpha: float = 0.25,
    steps: int = 200,
    batch: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
) -> Iterator[tuple[nn.Module, train.Step]]:
    """Algorithm 1 with the loss of any method: (the model in training, its `train.Step`) after each step.

    A copy of `model` is trained. Budgets are equal, since steps, images and optimiser do not depend on the method.

    Arguments:
        method: one of this module's losses, or a `Method`.
        retain: (N, C, H, W).
        forget: (M, C, H, W). Every step draws `batch` images of each, so a smaller set is oversampled until both weigh
            the same (D.1).
        mask: draws the mask of a step.
        noise: a target of `memlib.papers.i2i.targets`.
        vary: changes the images of a step, (batch, C, H, W), the retain images first; None leaves them as they are.
        alpha: weight of the forget term.

    Raises:
        Refused: for an empty set, images that differ in shape, a method that does not say what it trains or names no
            part of the model, and as `train.fit`.

    The paper (C.3) has alpha = 0.25; for VQ-GAN and MAE AdamW with betas (0.9, 0.95) and no weight decay, lr = 1e-4, 5
    epochs, 16 images a GPU on four; for diffusion Adam, lr = 1e-5, 3 epochs, 8 images a GPU on eight; it names no
    schedule and no clipping. Here it is `train.fit`'s Adam for every family: betas (0.9, 0.999), no weight decay, a
    rate that falls to 0 along a cosine, gradients clipped to norm 1; rate, steps, batch and what is hidden are the
    caller's.
    """
    if not len(retain) or not len(forget) or retain.shape[1:] != forget.shape[1:]:
        shapes = f"{tuple(retain.shape)} and {tuple(forget.shape)}"
        raise Refused(f"unlearning takes retain and forget images of one shape, at least one of each, not {shapes}")
    told, trained = getattr(method, "__name__", type(method).__name__), getattr(method, "trains", None)
    if trained is None:
        raise Refused(
            f"{told} does not say what it trains: give Method({told}, trains=('encoder', 'decoder')) or a part"
        )
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    model = copy.deepcopy(model).requires_grad_(False)
    for name in trained:
        part = getattr(model, name, None)
        if not isinstance(part, nn.Module):
            parts = ", ".join(name for name, _ in model.named_children())
            raise Refused(f"the method trains {name!r}, which the model does not have: name some of {parts}")
        part.requires_grad_(True)

    def loss(model: nn.Module, generator: torch.Generator) -> Tensor:
        images = [choose(part, batch, generator) for part in (retain, forget)]
        kept, lost = images if vary is None else (vary(part, generator) for part in images)
        material = UnlearningBatch(kept, lost, noise(batch, generator), mask(generator))
        held, sent = method(cast(Completer, model), cast(Completer, frozen), material, generator)
        return (held + alpha * sent).mean()

    for step in train.fit(model, loss, steps, lr=lr, seed=seed, title=told.replace("_", " ")):
        yield model, step
    model.eval()


def _taught(model: Completer, batch: UnlearningBatch, images: Tensor, generator: torch.Generator) -> Tensor:
    return model.loss(images, images, batch.mask, generator)


def _untaught(model: Completer, batch: UnlearningBatch, truth: Tensor, generator: torch.Generator) -> Tensor:
    return model.loss(batch.forget, truth, batch.mask, generator)


def flatten_codes(codes: Codes) -> Tensor:
    """Codes of one stage or of several as rows, (B, D)."""
    return torch.cat([stage.flatten(1) for stage in _stages(codes)], 1)


def _stages(codes: Codes) -> tuple[Tensor, ...]:
    return (codes,) if isinstance(codes, Tensor) else codes
