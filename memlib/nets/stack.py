"""Several networks of one architecture that train as one."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Stack(nn.Module):
    """Networks of one architecture side by side: many small ones cost little more than one, as batched products.

    forward: x (E B, *S), sigma (E B,), the rows of the e-th of E networks in one block -> (E B, *S), so that
    `denoiser.pair` and the losses need not know. Each has its own weights and its own gradient; train with clip=None,
    or the norm that gradients are clipped to would be shared. What is no parameter or buffer (`sigma_data`, say) is
    taken from the first; buffers stay on the device that they came on. Raises ValueError for networks whose tensors
    differ in name or shape.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        shapes = {tuple((name, t.shape) for name, t in net.state_dict().items()) for net in nets}
        if len(shapes) != 1:
            raise ValueError(f"a stack takes networks of one architecture, and these have {len(shapes)}")
        weights, buffers = torch.func.stack_module_state(list(nets))
        self.count, self.names = len(nets), list(weights)
        self.weights = nn.ParameterList(weights.values())  # a name with dots is no name for a parameter
        self.buffers_of = buffers
        self._one = [copy.deepcopy(nets[0]).requires_grad_(False)]  # in a list: its own weights are not the stack's

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x (E B, *S), sigma (E B,) or () -> (E B, *S)."""

        def one(weights: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, sigma: Tensor) -> Tensor:
            return torch.func.functional_call(self._one[0], (weights, buffers), (x, sigma))

        weights = dict(zip(self.names, self.weights, strict=True))
        blocks = x.unflatten(0, (self.count, -1))
        levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x)).unflatten(0, (self.count, -1))
        return torch.func.vmap(one)(weights, self.buffers_of, blocks, levels).flatten(0, 1)

    def unstack(self) -> list[nn.Module]:
        """The E networks, each by itself, with copies of their weights."""
        nets = [copy.deepcopy(self._one[0]) for _ in range(self.count)]
        for i, net in enumerate(nets):
            rows = {name: weight[i].detach() for name, weight in zip(self.names, self.weights, strict=True)}
            net.load_state_dict(rows | {name: buffer[i] for name, buffer in self.buffers_of.items()})
        return nets
