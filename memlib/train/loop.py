"""The training loop: the steps one by one, or all of them."""

import math
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from memlib.cache import checkpoints
from memlib.random import key, keyed, whole
from memlib.shapes import Float
from memlib.train._arguments import bf16_of, check, check_loss, check_networks
from memlib.train._parts import Parts

if TYPE_CHECKING:
    from accelerate import Accelerator

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
    accelerator: "Accelerator | None" = None,
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
        accelerator: of Hugging Face accelerate; trains in all processes of `accelerate launch`. A step then has as many
            parts as processes times accumulated gradients. Each calls the loss with a generator of its own, and the
            step takes the mean. Equal numbers of parts give equal networks within rounding, however they are dealt.
            The loss gets the network in accelerate's wrapper, which can only be called.
        title: of the progress bar.

    Raises:
        Refused: if the settings make no sense, the checkpoint is of other settings or of another network, or the
            Accelerator has a precision of its own or shards weights.
        Diverged: if the loss or the gradient is NaN or infinite. On a CPU the network then has the weights before that
            step; on a GPU this is noticed up to 25 steps later. Checkpoints are written after finite steps only.
    """
    steps, warmup, every, seed = map(whole, (steps, warmup, every, seed), ("steps", "warmup", "every", "seed"))
    check(steps, lr, schedule, warmup, every, decay, clip)
    check_networks(net, loss, ema, clip)
    parameters = [p for p in net.parameters() if p.requires_grad]
    parts = Parts(accelerator)
    bf16 = bf16_of(precision, parameters[0].device if accelerator is None else accelerator.device)
    settings = {
        "network": checkpoints.architecture(net), "schedule": schedule, "lr": lr, "warmup": warmup, "clip": clip,
        "steps": steps if schedule == "cosine" else None, "decay": None if ema is None else decay, "seed": seed,
        "precision": "bf16" if bf16 else "fp32",
    }  # fmt: skip
    if parts.count > 1:
        settings["parts"] = parts.count
    path = None
    if checkpoint is not None:
        path = Path(checkpoint).expanduser()
        path = path if path.suffix == ".safetensors" else path / "training.safetensors"
    return Steps(_steps(net, loss, steps, parameters, settings, ema, path, every, parts, title), steps)


def _steps(
    net: nn.Module,
    loss: Callable[[nn.Module, torch.Generator], Tensor],
    steps: int,
    parameters: list[nn.Parameter],
    settings: dict[str, Any],
    ema: nn.Module | None,
    path: Path | None,
    every: int,
    parts: Parts,
    title: str,
) -> Generator[Step, None, None]:
    """The loop of `fit`, whose settings are checked. Modes of all modules are as before when it ends."""
    lr, schedule, warmup, clip, seed = (settings[name] for name in ("lr", "schedule", "warmup", "clip", "seed"))
    model = parts.prepare(net, ema)
    device, bf16 = parameters[0].device, settings["precision"] == "bf16"
    # One fused kernel: a third of the time of the default Adam on small networks.
    optimiser = torch.optim.Adam(parameters, lr, fused=True)
    start = 0 if path is None else checkpoints.resume(path, net, ema, optimiser, settings, steps)
    averaged, buffered = None, False
    if ema is not None:
        ema.eval().requires_grad_(False)
        # Listed once: finding the weights of a small network takes longer than averaging them.
        averaged = [*ema.parameters()], [*net.parameters()]
        buffered = any(True for _ in net.buffers())
    modes = [(module, module.training) for module in net.modules()]
    recent: list[Step] = []
    shown: dict[str, Any] = {} if parts.first else {"disable": True}  # `disable=False` would overrule TQDM_DISABLE

    def part(j: int) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext(), _keyed(seed, j, device):
            value = loss(model, keyed(seed, j))
        check_loss(value)
        return value

    try:
        with tqdm(total=steps, initial=start, desc=title, **shown) as bar:
            for k in range(start, steps):
                if not net.training:
                    net.train()
                rate = optimiser.param_groups[0]["lr"] = learning_rate(k, steps, lr, schedule, warmup)
                optimiser.zero_grad()
                value = parts.gradient(model, lambda j, k=k: part(k * parts.count + j))
                norm = nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip)
                step = Step(k, value, rate, norm)
                recent.append(step)
                saving = path is not None and ((k + 1) % every == 0 or k + 1 == steps)
                if device.type == "cpu" or saving or len(recent) == _LAG or k + 1 == steps:
                    last = _finite(recent, path)
                    recent.clear()
                    if k % _LAG == 0 or device.type != "cpu":
                        bar.set_postfix_str(f"loss {last:.4g}", refresh=False)
                optimiser.step()
                if averaged is not None:
                    with torch.no_grad():
                        torch._foreach_lerp_(*averaged, 1 - min(settings["decay"], (1 + k) / (10 + k)))
                if ema is not None and buffered:  # looked up in every step: a module may put another in its place
                    _copy_buffers(ema, net)
                if saving and path is not None and parts.first:
                    checkpoints.write(path, net, ema, optimiser, {"step": k + 1, "settings": settings})
                bar.update()
                yield step
        parts.wait()  # what the first process writes at the end is there for all
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
def _copy_buffers(ema: nn.Module, net: nn.Module) -> None:
    for kept, buffer in zip(ema.buffers(), net.buffers(), strict=True):
        kept.copy_(buffer)
