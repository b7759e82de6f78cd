"""What `fit` is given, looked at before anything is trained."""

import math

import torch
from torch import Tensor, nn

from memlib.errors import Refused


def check(steps: int, lr: float, schedule: str, warmup: int, every: int, decay: float, clip: float | None) -> None:
    """Refuse settings of `fit` that make no sense."""
    if schedule not in ("cosine", "constant"):
        raise Refused(f"schedule is cosine or constant, not {schedule!r}")
    if steps < 1 or every < 1 or not 0 <= warmup < steps:
        raise Refused(f"need steps >= 1, every >= 1 and 0 <= warmup < steps, not {steps}, {every}, {warmup}")
    if not (0 < lr < math.inf and 0 <= decay < 1):
        raise Refused(f"need lr > 0 and 0 <= decay < 1, not lr={lr}, decay={decay}")
    if clip is not None and not clip > 0:
        raise Refused(f"clip is the largest norm of the gradient, above 0, or None for no clipping, not {clip}")


def check_networks(net: nn.Module, loss: object, ema: nn.Module | None, clip: float | None) -> None:
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


def check_loss(value: object) -> None:
    """Refuse what is no scalar loss, of any shape, or does not depend on the network."""
    if not isinstance(value, Tensor):
        raise Refused(f"the loss must be a scalar tensor, not a {type(value).__name__}: return its mean")
    if value.ndim:
        raise Refused(f"the loss must be a scalar, not of shape {tuple(value.shape)}: return its mean")
    if not value.requires_grad:
        raise Refused(
            "the loss depends on no parameter of the network: call the network that it is given, with gradients"
        )


def bf16_of(precision: str | None, device: torch.device) -> bool:
    """Whether to compute in bfloat16. Raises Refused where it is asked for and the device has none."""
    if precision not in (None, "bf16", "fp32"):
        raise Refused(f"precision is bf16, fp32 or None, not {precision!r}")
    able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and not able:
        raise Refused(f"precision bf16 needs a GPU with bfloat16, and the network is on {device}: leave it at None")
    return able and precision != "fp32"
