"""Adam of Kingma & Ba 2015 as one kernel a step, with the bits of `torch.optim.Adam(fused=True)`.

That class imports torch's compiler, which takes a second in every process, and then half a millisecond a step to find
what one call of the kernel needs: a tenth of a small network's step.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

BETAS, EPS = (0.9, 0.999), 1e-8

Moments = dict[str, Tensor]
"""What is kept of a parameter of shape S: `step` (), `exp_avg` and `exp_avg_sq` (*S)."""


class Adam:
    """Adam for parameters of any shapes, devices and dtypes, without weight decay.

    Attributes:
        parameters: those that are trained.
        moments: of each parameter by its place among them, from its first gradient on.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.parameters = list(parameters)
        self.moments: dict[int, Moments] = {}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move each parameter that has a gradient, in place, at the learning rate `lr`."""
        groups: dict[tuple[torch.device, torch.dtype], list[tuple[Tensor, ...]]] = {}
        for i, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            if i not in self.moments:
                step = torch.zeros((), dtype=torch.float32, device=parameter.device)
                self.moments[i] = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.moments[i]["step"] = step
            kept = self.moments[i]
            row = parameter, parameter.grad, kept["exp_avg"], kept["exp_avg_sq"], kept["step"]
            groups.setdefault((parameter.device, parameter.dtype), []).append(row)
        for rows in groups.values():
            parameters, gradients, first, second, steps = map(list, zip(*rows, strict=True))
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                parameters,
                gradients,
                first,
                second,
                [],
                steps,
                amsgrad=False,
                lr=lr,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=0.0,
                eps=EPS,
                maximize=False,
            )

    def load(self, moments: dict[int, Moments]) -> None:
        """Go on from the moments of another time; each is brought to the device and, but for the step, the dtype of
        its parameter."""
        self.moments = {
            i: {
                name: value.to(self.parameters[i].device, value.dtype if name == "step" else self.parameters[i].dtype)
                for name, value in kept.items()
            }
            for i, kept in moments.items()
        }
