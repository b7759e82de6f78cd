"""Fit a network: a generator of steps, so that the caller writes the loop around it.

All random numbers of step k come from a generator keyed by (seed, k). A checkpoint therefore contains weights, their
running average and the moments of Adam, and no random state. On a CPU, a run that was killed and started again ends in
the same bits as a run that was not.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from tqdm import tqdm

from memlib.cache.atomic import replace_file
from memlib.errors import Refused
from memlib.random import key, keyed
from memlib.shapes import Float

_LAG = 25  # steps between checks of the loss on a GPU, where each check waits for the device; on a CPU every step


class Step(NamedTuple):
    """One optimiser step.

    Arguments:
        index: counted from 0.
        loss: before the step, a scalar tensor. It stays on the device, since reading it there takes time.
        lr: the learning rate.
        grad_norm: the norm of the gradient before clipping, a scalar tensor on the device.
    """

    index: int
    loss: Float[Tensor, ""]
    lr: float
    grad_norm: Float[Tensor, ""]


class Diverged(RuntimeError):
    """A loss or gradient in training was NaN or infinite. The last checkpoint is unchanged."""

    _render_traceback_ = Refused._render_traceback_


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
) -> Iterator[Step]:
    """Train `net` in place with Adam, in training mode, and yield a `Step` after each optimiser step.

    Training starts when the generator is iterated. Dropout layers get random numbers keyed by (seed, step) too.

    Arguments:
        net: the network; its parameters that require a gradient are trained.
        loss: `loss(net, generator)` -> scalar Tensor. The generator is on the CPU, and equal for equal (seed, step) on
            every device. All random numbers of the loss must come from it.
        steps: optimiser steps in all.
        lr: the largest learning rate, see `learning_rate`.
        schedule: see `learning_rate`.
        warmup: steps, see `learning_rate`.
        clip: largest global gradient norm; None for no clipping.
        ema: a deepcopy of `net`, which becomes the running average of its parameters: after step k,
            ema += (1 - min(decay, (1 + k) / (10 + k))) (net - ema). Early steps have little weight, as in Song et al.
            2021. Buffers are copied.
        decay: see ema.
        seed: of all random numbers.
        checkpoint: a folder, or a file `*.safetensors`. It is written every `every` steps and at the end. If it exists,
            training goes on from there; if it is complete, the weights are loaded and no step is yielded. It does not
            know the data inside `loss`: give each data set its own checkpoint.
        every: steps between checkpoints.
        precision: None is bfloat16 autocast on a GPU that has it, and float32 elsewhere; "fp32" is float32; "bf16"
            requires such a GPU.
        title: of the progress bar.

    Raises:
        Refused: if the settings make no sense, or the checkpoint is of other settings or of another network.
        Diverged: if the loss or the gradient is NaN or infinite. On a CPU the network then has the weights before that
            step; on a GPU this is noticed up to 25 steps later. Checkpoints are written after finite steps only.
    """
    _check(steps, lr, schedule, warmup, every, decay)
    if ema is net:
        raise Refused("ema is the network itself: give a copy.deepcopy of it")
    parameters = [p for p in net.parameters() if p.requires_grad]
    if not parameters:
        raise Refused("the network has no parameter that requires a gradient: there is nothing to train")
    device = parameters[0].device
    bf16 = _bf16(precision, device)
    # One fused kernel: a third of the time of the default Adam on small networks.
    optimiser = torch.optim.Adam(parameters, lr, fused=True)
    settings = {
        "network": _fingerprint(net), "schedule": schedule, "steps": steps if schedule == "cosine" else None, "lr": lr,
        "warmup": warmup, "clip": clip, "decay": None if ema is None else decay, "seed": seed,
        "precision": "bf16" if bf16 else "fp32",
    }  # fmt: skip
    path, start = None, 0
    if checkpoint is not None:
        path = Path(checkpoint)
        path = path if path.suffix == ".safetensors" else path / "training.safetensors"
        start = _resume(path, net, ema, optimiser, settings, steps)
    if ema is not None:
        ema.eval().requires_grad_(False)
    noisy = any(isinstance(m, _DropoutNd) and m.p > 0 for m in net.modules())
    recent: list[Step] = []
    with tqdm(total=steps, initial=start, desc=title) as bar:
        for k in range(start, steps):
            if not net.training:
                net.train()
            rate = optimiser.param_groups[0]["lr"] = learning_rate(k, steps, lr, schedule, warmup)
            optimiser.zero_grad()
            with (
                torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext(),
                _keyed_dropout(seed, k, device) if noisy else nullcontext(),
            ):
                value = loss(net, keyed(seed, k))
            if value.ndim:
                raise Refused(f"the loss must be a scalar, not of shape {tuple(value.shape)}: return its mean")
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
                _average(ema, net, min(decay, (1 + k) / (10 + k)))
            if saving and path is not None:
                _save(path, net, ema, optimiser, {"step": k + 1, "settings": settings})
            bar.update()
            yield step


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
def _keyed_dropout(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Key the global generators, which dropout uses, to (seed, step), and restore them afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(key(~seed, step))  # ~: another stream than that of the loss
        yield


def _check(steps: int, lr: float, schedule: str, warmup: int, every: int, decay: float) -> None:
    if schedule not in ("cosine", "constant"):
        raise Refused(f"schedule is cosine or constant, not {schedule!r}")
    if steps < 1 or every < 1 or not 0 <= warmup < steps:
        raise Refused(f"need steps >= 1, every >= 1 and 0 <= warmup < steps, not {steps}, {every}, {warmup}")
    if not (lr > 0 and 0 <= decay < 1):
        raise Refused(f"need lr > 0 and 0 <= decay < 1, not lr={lr}, decay={decay}")


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


# Checkpoints: one file each, with the step and the settings in its header.


def _fingerprint(net: nn.Module) -> str:
    """SHA-256 of the names, shapes and types of the state, and of which parameters are trained."""
    state = [(name, tuple(t.shape), str(t.dtype)) for name, t in net.state_dict().items()]
    trained = [name for name, p in net.named_parameters() if p.requires_grad]
    return hashlib.sha256(repr((state, trained)).encode()).hexdigest()


def _save(path: Path, net: nn.Module, ema: nn.Module | None, optimiser: torch.optim.Optimizer, record: dict) -> None:
    """Write the checkpoint atomically: a kill at any moment leaves the old file or the new one."""
    state = {f"net.{name}": t for name, t in net.state_dict().items()}
    state |= {f"ema.{name}": t for name, t in ema.state_dict().items()} if ema is not None else {}
    moments = optimiser.state_dict()["state"]
    state |= {f"adam.{i}.{name}": t for i, entry in moments.items() for name, t in entry.items()}
    seen: set[int] = set()
    for name, t in state.items():  # tied weights share memory, which the format does not allow
        t = t.detach().cpu().contiguous()
        state[name] = t.clone() if t.data_ptr() in seen else t
        seen.add(t.data_ptr())
    replace_file(path, lambda beside: save_file(state, beside, {"memlib": json.dumps(record)}))


def _resume(
    path: Path, net: nn.Module, ema: nn.Module | None, optimiser: torch.optim.Optimizer, settings: dict, steps: int
) -> int:
    """Load the checkpoint, if there is one, and return the number of its steps."""
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {})["memlib"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, KeyError, ValueError) as error:
        raise Refused(
            f"{path} is not a training checkpoint: give another folder, or delete it to start over"
        ) from error
    for name, new in settings.items():
        if (old := record["settings"].get(name)) != new:
            differs = "of another network" if name == "network" else f"made with {name}={old}, not {new}"
            raise Refused(f"the checkpoint {path} is {differs}: give another folder, or delete it to start over")
    if record["step"] > steps:
        raise Refused(f"the checkpoint {path} is at step {record['step']}, beyond steps={steps}: give another folder")

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}

    net.load_state_dict(part("net."))
    if ema is not None:
        ema.load_state_dict(part("ema."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, t in part("adam.").items():
        index, entry = name.split(".")
        moments.setdefault(int(index), {})[entry] = t
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return record["step"]
