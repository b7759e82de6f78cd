"""Train a network: `train` does it, and `fit` gives the steps one by one, so that the caller writes the loop.

All random numbers of step k come from generators keyed by (seed, k). A checkpoint therefore contains weights, their
running average and the moments of Adam, and no random state. On a CPU, a run that was killed and started again ends in
the same bits as a run that was not.
"""

import math
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from memlib.cache import checkpoints
from memlib.errors import Refused
from memlib.random import key, keyed, whole
from memlib.shapes import Float

_LAG = 25  # steps between checks of the loss on a GPU, where each check waits for the device; on a CPU every step


class Step(NamedTuple):
    """One optimiser step.

    Arguments:
        index: counted from 0.
        loss: before the step, a scalar tensor, left on the device, since reading it there takes time.
        lr: the learning rate.
        grad_norm: the norm of the gradient before clipping, a scalar tensor on the device.
    """

    index: int
    loss: Float[Tensor, ""]
    lr: float
    grad_norm: Float[Tensor, ""]


class Diverged(RuntimeError):
    """A loss or gradient in training was NaN or infinite. The last checkpoint is unchanged."""


def train(
    net: nn.Module, loss: Callable[[nn.Module, torch.Generator], Tensor], steps: int, **options: Any
) -> nn.Module:
    """Train `net` in place, with a progress bar, and return the network to sample: `ema` if it is given, else `net`.

    Arguments, `loss(net, generator)` -> scalar among them, and errors are those of `fit`.
    """
    for _ in fit(net, loss, steps, **options):
        pass
    ema = options.get("ema")
    return net if ema is None else ema


class Steps(Iterator[Step]):
    """The steps of a training, one after the other; what `fit` returns. It trains as it is iterated, and only then.

    One that nobody began to iterate says so when it is shown, and warns when it is thrown away.
    """

    def __init__(self, run: Generator[Step, None, None], steps: int) -> None:
        self._run, self._idle = run, f"nothing was trained: iterate over fit(...) of {steps} steps, or call train.train"

    def __next__(self) -> Step:
        self._idle = ""
        return next(self._run)

    def close(self) -> None:
        """End the training after the last step that was taken."""
        self._idle = ""
        self._run.close()

    def __repr__(self) -> str:
        return f"<{self._idle}>" if self._idle else "<steps of a training>"

    def __del__(self) -> None:
        if getattr(self, "_idle", ""):
            warnings.warn(self._idle, stacklevel=2)


def fit(
    net: nn.Module,
    loss: Callable[[nn.Module, torch.Generator], Tensor],
    steps: int,
    *,
    lr: float = 1e-3,
    schedule: Literal["cosine", "constant"] = "cosine",
    warmup: int = 0,
    clip: float | None = 1.0,
    ema: nn.Module | None = None,
    decay: float = 0.999,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    every: int = 500,
    precision: Literal["bf16", "fp32"] | None = None,
    title: str = "training",
) -> Steps:
    """Train `net` in place with Adam, in training mode, and yield a `Step` after each optimiser step.

    Arguments are checked at the call; training takes place in the loop over the result. A run that goes on from a
    checkpoint yields the steps that are left, so what the loop collects on its way belongs in files of its own. At the
    end of the loop every module has the mode, training or evaluation, that it had before.

    Arguments:
        net: the network; its parameters that require a gradient are trained.
        loss: `loss(net, generator)` -> scalar Tensor. The generator is on the CPU, and equal for equal (seed, step) on
            every device: random numbers of the loss should come from it. Those of torch's global generators, such as
            dropout's, are keyed by (seed, step) too; they differ between devices.
        steps: optimiser steps in all.
        lr: the largest learning rate, see `learning_rate`.
        schedule: see `learning_rate`.
        warmup: steps, see `learning_rate`.
        clip: largest global gradient norm; None for no clipping, which a `nets.Stack` needs.
        ema: a deepcopy of `net`, which becomes the running average of its parameters: after step k,
            ema += (1 - min(decay, (1 + k) / (10 + k))) (net - ema). Early steps have little weight, as in Song et al.
            2021. Buffers are copied.
        decay: see ema.
        seed: of all random numbers.
        checkpoint: a folder, or a file `*.safetensors`. It is written every `every` steps and at the end. If it exists,
            training goes on from there; if it is complete, the weights are loaded and no step is yielded. It does not
            know the data inside `loss`: give each data set its own checkpoint.
        every: steps between checkpoints.
        precision: "bf16" is bfloat16 autocast on a GPU that has it, "fp32" float32, None the first of them that works.
        title: of the progress bar.

    Raises:
        Refused: if the settings make no sense, or the checkpoint is of other settings or of another network.
        Diverged: if the loss or the gradient is NaN or infinite. On a CPU the network then has the weights before that
            step; on a GPU this is noticed up to 25 steps later. Checkpoints are written after finite steps only.
    """
    steps, warmup, every, seed = map(whole, (steps, warmup, every, seed), ("steps", "warmup", "every", "seed"))
    _check(steps, lr, schedule, warmup, every, decay, clip)
    _check_networks(net, loss, ema, clip)
    parameters = [p for p in net.parameters() if p.requires_grad]
    bf16 = _bf16(precision, parameters[0].device)
    settings = {
        "network": checkpoints.architecture(net), "schedule": schedule, "lr": lr, "warmup": warmup, "clip": clip,
        "steps": steps if schedule == "cosine" else None, "decay": None if ema is None else decay, "seed": seed,
        "precision": "bf16" if bf16 else "fp32",
    }  # fmt: skip
    path = None
    if checkpoint is not None:
        path = Path(checkpoint).expanduser()
        path = path if path.suffix == ".safetensors" else path / "training.safetensors"
    return Steps(_steps(net, loss, steps, parameters, settings, ema, path, every, title), steps)


def _steps(
    net: nn.Module,
    loss: Callable[[nn.Module, torch.Generator], Tensor],
    steps: int,
    parameters: list[nn.Parameter],
    settings: dict[str, Any],
    ema: nn.Module | None,
    path: Path | None,
    every: int,
    title: str,
) -> Generator[Step, None, None]:
    """The loop of `fit`, whose settings are checked. Modes of all modules are as before when it ends."""
    lr, schedule, warmup, clip, seed = (settings[name] for name in ("lr", "schedule", "warmup", "clip", "seed"))
    device, bf16 = parameters[0].device, settings["precision"] == "bf16"
    # One fused kernel: a third of the time of the default Adam on small networks.
    optimiser = torch.optim.Adam(parameters, lr, fused=True)
    start = 0 if path is None else checkpoints.resume(path, net, ema, optimiser, settings, steps)
    if ema is not None:
        ema.eval().requires_grad_(False)
    modes = [(module, module.training) for module in net.modules()]
    recent: list[Step] = []
    try:
        with tqdm(total=steps, initial=start, desc=title) as bar:
            for k in range(start, steps):
                if not net.training:
                    net.train()
                rate = optimiser.param_groups[0]["lr"] = learning_rate(k, steps, lr, schedule, warmup)
                optimiser.zero_grad()
                with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext(), _keyed(seed, k, device):
                    value = loss(net, keyed(seed, k))
                _check_loss(value)
                value.backward()
                norm = nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip)
                step = Step(k, value.detach(), rate, norm)
                recent.append(step)
                saving = path is not None and ((k + 1) % every == 0 or k + 1 == steps)
                if device.type == "cpu" or saving or len(recent) == _LAG or k + 1 == steps:
                    last = _finite(recent, path)
                    recent.clear()
                    if k % _LAG == 0 or device.type != "cpu":
                        bar.set_postfix_str(f"loss {last:.4g}", refresh=False)
                optimiser.step()
                if ema is not None:
                    _average(ema, net, min(settings["decay"], (1 + k) / (10 + k)))
                if saving and path is not None:
                    checkpoints.write(path, net, ema, optimiser, {"step": k + 1, "settings": settings})
                bar.update()
                yield step
    finally:
        for module, training in modes:
            module.training = training


def learning_rate(
    step: int, steps: int, lr: float, schedule: Literal["cosine", "constant"] = "cosine", warmup: int = 0
) -> float:
    """The learning rate of a step, 0 <= step < steps, a scalar. Loshchilov & Hutter 2017, eq. 5.

    It rises as lr (step + 1) / warmup, and then is constant or falls to 0 along half a cosine over the other steps.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    if schedule == "constant":
        return lr
    return lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


@contextmanager
def _keyed(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Key the global generators, which dropout uses, to (seed, step), and restore them afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        chosen = key(~seed, step)  # ~: another stream than that of the loss
        if device.type == "cpu":
            torch.default_generator.manual_seed(chosen)
        else:
            torch.manual_seed(chosen)
        yield


def _check(steps: int, lr: float, schedule: str, warmup: int, every: int, decay: float, clip: float | None) -> None:
    if schedule not in ("cosine", "constant"):
        raise Refused(f"schedule is cosine or constant, not {schedule!r}")
    if steps < 1 or every < 1 or not 0 <= warmup < steps:
        raise Refused(f"need steps >= 1, every >= 1 and 0 <= warmup < steps, not {steps}, {every}, {warmup}")
    if not (0 < lr < math.inf and 0 <= decay < 1):
        raise Refused(f"need lr > 0 and 0 <= decay < 1, not lr={lr}, decay={decay}")
    if clip is not None and not clip > 0:
        raise Refused(f"clip is the largest norm of the gradient, above 0, or None for no clipping, not {clip}")


def _check_networks(net: nn.Module, loss: object, ema: nn.Module | None, clip: float | None) -> None:
    """Refuse what cannot be trained, and a running average that is not a copy of the network."""
    if not isinstance(net, nn.Module):
        raise Refused(f"fit trains a network, an nn.Module, not a {type(net).__name__}")
    if not callable(loss):
        raise Refused(f"the loss is {loss!r}: give a function loss(net, generator) that returns a scalar tensor")
    if not any(p.requires_grad for p in net.parameters()):
        raise Refused("the network has no parameter that requires a gradient: there is nothing to train")
    if clip is not None and hasattr(net, "unstack"):
        raise Refused("a stack is clipped by the norm of all its networks' gradients together: give clip=None")
    if ema is net:
        raise Refused("ema is the network itself: give a copy.deepcopy of it")
    if ema is not None:
        own, kept = ([*of.named_parameters(), *of.named_buffers()] for of in (net, ema))
        if [(name, t.shape) for name, t in own] != [(name, t.shape) for name, t in kept]:
            raise Refused("ema has other tensors than the network: give a copy.deepcopy of it")
        if shared := [name for (name, a), (_, b) in zip(own, kept, strict=True) if a is b]:
            raise Refused(f"ema shares {shared[0]} with the network: give a copy.deepcopy of it")


def _check_loss(value: object) -> None:
    if not isinstance(value, Tensor):
        raise Refused(f"the loss must be a scalar tensor, not a {type(value).__name__}: return its mean")
    if value.ndim:
        raise Refused(f"the loss must be a scalar, not of shape {tuple(value.shape)}: return its mean")
    if not value.requires_grad:
        raise Refused(
            "the loss depends on no parameter of the network: call the network that it is given, with gradients"
        )


def _bf16(precision: str | None, device: torch.device) -> bool:
    if precision not in (None, "bf16", "fp32"):
        raise Refused(f"precision is bf16, fp32 or None, not {precision!r}")
    able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and not able:
        raise Refused(f"precision bf16 needs a GPU with bfloat16, and the network is on {device}: leave it at None")
    return able and precision != "fp32"


def _finite(recent: list[Step], path: Path | None) -> float:
    """The last loss, after one look at all `recent` steps; raises Diverged at the first that is not finite."""
    values = torch.stack([torch.stack([s.loss.double(), s.grad_norm.double()]) for s in recent]).tolist()
    for step, (loss, norm) in zip(recent, values, strict=True):
        if not (math.isfinite(loss) and math.isfinite(norm)):
            kept = f"; {path} holds the last good state" if path is not None and path.exists() else ""
            raise Diverged(
                f"training diverged at step {step.index}, with loss {loss:.4g}, gradient norm {norm:.4g} and lr "
                f"{step.lr:.3g}: lower lr, clip harder or look for bad data{kept}"
            )
    return values[-1][0]


@torch.no_grad()
def _average(ema: nn.Module, net: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(net.parameters()), 1 - decay)
    for kept, buffer in zip(ema.buffers(), net.buffers(), strict=True):
        kept.copy_(buffer)
