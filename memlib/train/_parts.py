"""One training in several processes, or in several parts a step, by Hugging Face accelerate."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from memlib.errors import Refused

if TYPE_CHECKING:
    from accelerate import Accelerator


class Parts:
    """The parts of each optimiser step: as many as processes times gradients that each accumulates. One without an
    Accelerator.

    Part j of step k draws its random numbers by (seed, k * count + j), whichever process works on it. So two processes,
    or one that accumulates two gradients, train the same network within rounding.
    """

    def __init__(self, accelerator: "Accelerator | None") -> None:
        """Take an Accelerator, or None.

        Raises:
            Refused: for one with a precision or a way of sharding weights of its own.
        """
        self.accelerator = accelerator
        self.own = range(1)
        self.count = 1
        if accelerator is None:
            return
        if accelerator.mixed_precision != "no":
            raise Refused(
                f"the Accelerator has mixed_precision={accelerator.mixed_precision!r}, and fit has a precision of its "
                "own: leave it out there and give fit precision='bf16'"
            )
        kind = accelerator.distributed_type.value
        if kind != "NO" and not kind.startswith("MULTI_"):
            raise Refused(f"fit keeps whole weights in each process, and the Accelerator is for {kind}: leave that out")
        each = accelerator.gradient_accumulation_steps
        self.count = accelerator.num_processes * each
        self.own = range(accelerator.process_index * each, (accelerator.process_index + 1) * each)

    @property
    def first(self) -> bool:
        """Whether this process writes checkpoints and shows progress."""
        return self.accelerator is None or self.accelerator.is_main_process

    def prepare(self, net: nn.Module, ema: nn.Module | None) -> nn.Module:
        """The network to call in the loss. Weights and running average become those of the first process."""
        if self.accelerator is None:
            return net
        called = self.accelerator.prepare(net)  # wrapped: gradients of all processes are averaged
        if ema is not None:
            from accelerate.utils import broadcast

            ema.to(self.accelerator.device)
            with torch.no_grad():
                for kept in (*ema.parameters(), *ema.buffers()):
                    kept.copy_(broadcast(kept.detach().clone()))
        return called

    def gradient(self, net: nn.Module, loss: Callable[[int], Tensor]) -> Tensor:
        """Add the gradient of the mean of loss(j) over all parts j, and return that mean, a scalar.

        Arguments:
            net: from `prepare`.
            loss: of part j, a scalar with a gradient.
        """
        if self.accelerator is None:
            value = loss(0)
            value.backward()
            return value.detach()
        total = torch.zeros((), device=self.accelerator.device)
        for j in self.own:
            with nullcontext() if j == self.own[-1] else self.accelerator.no_sync(net):  # gradients travel once a step
                value = loss(j)
                self.accelerator.backward(value)  # divides by the number of accumulated gradients
            total = total + value.detach() / len(self.own)
        return cast(Tensor, self.accelerator.reduce(total, "mean"))

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()
