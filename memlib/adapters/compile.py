"""A trained denoiser made fast for sampling: compiled by torch, in bfloat16 and as a CUDA graph where there is one.

A small network spends its time on the way to its kernels, and a large one in float32 products. `torch.compile` fuses
the first and, on a CUDA device, replays all kernels of a call as one graph. Autocast turns the second into bfloat16.
The sampler around it stays in the dtype of x: only D is rounded.
"""

import copy
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from memlib.adapters.discrete import Discrete
from memlib.denoiser import Denoiser, Variance, variance_of
from memlib.errors import Refused


class Compiled(nn.Module):
    """The denoiser that `compiled` returns, D(x, sigma), (B, *S) -> (B, *S), in the dtype of x, without gradients.

    `frozen` is the module that it was made from; its `variance` is what `sample.ancestral` reads. A class-conditional
    network takes its labels as before: `functools.partial(D, y=y)`.
    """

    def __init__(self, frozen: nn.Module, call: Callable[..., Tensor], dtype: torch.dtype | None) -> None:
        super().__init__()
        self.frozen, self.call, self.dtype = frozen, call, dtype
        self.variance: Variance = variance_of(frozen)
        self.eval()

    @torch.no_grad()
    def forward(self, x: Tensor, sigma: Tensor, **bound: Any) -> Tensor:
        """D(x, sigma) for x (B, *S) and sigma () or (B,); `bound` goes to the network's own denoiser."""
        with torch.autocast(x.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            # A copy: the graph writes the next result where it wrote this one.
            return self.call(x, sigma, **bound).to(x.dtype, copy=True)


def compiled(denoiser: nn.Module, precision: Literal["bf16", "fp32"] | None = None) -> Denoiser:
    """A frozen, compiled copy of a network for sampling, where most calls have one shape (B, *S).

    The first call of each shape takes seconds to a minute. Sample with batches of one size, and pad the last. Whether
    it pays on a CPU has not been measured for many batches. Without a C++ compiler the network stays as it is there,
    with a warning.

    Arguments:
        denoiser: a module D(x, sigma) such as `nets.Preconditioned`, or a `Discrete`, whose network is compiled.
        precision: None is bfloat16 on a CUDA device that has it, and the dtype of the weights elsewhere. bfloat16 keeps
            eight bits: D is off by up to 1 % of its size.

    Returns:
        A denoiser (B, *S) -> (B, *S) without gradients: guide it with a classifier, whose gradients are its own.

    Raises:
        Refused: for a denoiser that is no module with parameters, another precision, and bf16 on a device without it.
    """
    if not isinstance(denoiser, nn.Module) or (parameter := next(denoiser.parameters(), None)) is None:
        raise Refused("only a module with parameters can be compiled: give the network's denoiser itself")
    if precision not in (None, "bf16", "fp32"):
        raise Refused(f"precision is bf16, fp32 or None, not {precision!r}")
    device = parameter.device
    able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and not able:
        raise Refused(f"precision bf16 needs a GPU with bfloat16, and the network is on {device}: leave it at None")
    fast = able and precision != "fp32"
    frozen = copy.deepcopy(denoiser).eval().requires_grad_(False)
    if device.type == "cuda":
        frozen = frozen.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if device.type == "cpu" and not _compiler():
        warnings.warn(
            "torch.compile needs a C++ compiler (g++, or one in CXX): the network is not compiled", stacklevel=2
        )
        return Compiled(frozen, frozen, None)
    mode = "reduce-overhead" if device.type == "cuda" else None  # CUDA graphs
    if isinstance(frozen, Discrete):  # its levels are looked up on the CPU, before the network is called
        frozen.net = torch.compile(frozen.net, mode=mode, dynamic=False)
        call: Callable[..., Tensor] = frozen
    else:
        call = torch.compile(frozen, mode=mode, dynamic=False)
    return Compiled(frozen, call, torch.bfloat16 if fast else None)


def _compiler() -> str | None:
    """The C++ compiler that torch.compile calls for a CPU."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))
