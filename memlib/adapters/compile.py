"""A trained denoiser made fast for sampling: compiled by torch, in bfloat16 and as a CUDA graph where there is one.

A small network spends its time on the way to its kernels, and a large one in float32 products. `torch.compile` fuses
the first and, on a CUDA device, replays all kernels of a call as one graph. Autocast turns the second into bfloat16.
The sampler around it stays in the dtype of x: only D is rounded.
"""

import copy
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from memlib.adapters.discrete import Discrete
from memlib.denoiser import Denoiser
from memlib.errors import Refused


class Compiled(nn.Module):
    """The denoiser that `compiled` returns, D(x, sigma), (B, *S) -> (B, *S), in the dtype of x, without gradients."""

    def __init__(self, call: Callable[..., Tensor], device: torch.device, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.call, self.device, self.dtype = call, device, dtype

    @torch.no_grad()
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, sigma) for x (B, *S) and sigma () or (B,)."""
        with torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            # A copy: the graph writes the next result where it wrote this one.
            return self.call(x, sigma).to(x.dtype, copy=True)


def compiled(denoiser: nn.Module, precision: Literal["bf16", "fp32"] | None = None) -> Denoiser:
    """A frozen, compiled copy of a network for sampling, where most calls have one shape (B, *S).

    The first call of each shape takes seconds to a minute. Sample with batches of one size, and pad the last.

    Arguments:
        denoiser: a module D(x, sigma) such as `nets.Preconditioned`, or a `Discrete`, whose network is compiled.
        precision: None is bfloat16 on a CUDA device that has it, and the dtype of the weights elsewhere. bfloat16 keeps
            eight bits: D is off by up to 1 % of its size.

    Returns:
        A denoiser (B, *S) -> (B, *S) without gradients: guide it with a classifier, whose gradients are its own.

    Raises:
        Refused: for a denoiser that is no module with parameters, and for bf16 on a device that lacks it.
    """
    if not isinstance(denoiser, nn.Module) or (parameter := next(denoiser.parameters(), None)) is None:
        raise Refused("only a module with parameters can be compiled: give the network's denoiser itself")
    device = parameter.device
    able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and not able:
        raise Refused(f"precision bf16 needs a GPU with bfloat16, and the network is on {device}: leave it at None")
    fast = able and precision != "fp32"
    frozen = copy.deepcopy(denoiser).eval().requires_grad_(False)
    if device.type == "cuda":
        frozen = frozen.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    mode = "reduce-overhead" if device.type == "cuda" else None  # CUDA graphs
    if isinstance(frozen, Discrete):  # its levels are looked up on the CPU, before the network is called
        frozen.net = torch.compile(frozen.net, mode=mode, dynamic=False)
        call: Callable[..., Tensor] = frozen
    else:
        call = torch.compile(frozen, mode=mode, dynamic=False)
    return Compiled(call, device, torch.bfloat16 if fast else None)
