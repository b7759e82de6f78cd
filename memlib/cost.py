"""What a run would cost before it is started: floating-point operations of its networks, hours, and space on disk.

Operations are counted by torch on networks without memory (the device `meta`), so a network of any size is counted in
a moment on any machine. A multiplication and an addition count as two.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

TRAINING = 3  # forward, and twice as much backward: for the inputs of each layer and for its weights
SUSTAINED = 4e14  # operations a second: 40 % of what an H100 states for dense bfloat16
_ROWS = 2  # of the batch that is counted


@dataclass(frozen=True)
class Work:
    """One stage of a run.

    Attributes:
        stage: what is done, such as "guided samples".
        operations: floating-point operations of the networks.
        disk: bytes that it leaves.
    """

    stage: str
    operations: float
    disk: float = 0.0

    def hours(self, devices: int = 1, rate: float = SUSTAINED) -> float:
        """Hours on so many devices that do `rate` operations a second each, a scalar."""
        return self.operations / (rate * devices) / 3600


def operations(build: Callable[[], nn.Module], shape: tuple[int, ...], *, gradient: bool = False) -> float:
    """Operations of one call net(x, sigma) for one sample of shape S, a scalar.

    Arguments:
        build: makes the network.
        shape: S of x (B, *S).
        gradient: count the gradient with respect to x as well, as guidance takes it.
    """
    with torch.device("meta"):
        net = build().requires_grad_(False)
        x, sigma = torch.empty(_ROWS, *shape).requires_grad_(gradient), torch.empty(_ROWS)
    counter = FlopCounterMode(display=False)
    with counter:
        x = x * 1  # the counter cannot watch a gradient that ends in a leaf
        found: Tensor = net(x, sigma)
        if gradient:
            torch.autograd.grad(found.sum(), x)
    return counter.get_total_flops() / _ROWS


def counted(call: Callable[[], object]) -> float:
    """Operations of all matrix products and convolutions of `call()`, forward and backward, a scalar.

    Attention is done product by product, since torch does not count the fused kernels of a CPU.
    """
    counter, fused = FlopCounterMode(display=False), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with counter, sdpa_kernel(SDPBackend.MATH):
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return float(counter.get_total_flops())


def weights(build: Callable[[], nn.Module]) -> int:
    """Bytes of the weights of a network, a scalar."""
    with torch.device("meta"):
        net = build()
    return sum(p.numel() * p.element_size() for p in net.parameters())
