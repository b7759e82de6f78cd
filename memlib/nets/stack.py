"""Several networks of one architecture that train as one."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memlib.shapes import Float, PerSample


class Stack(nn.Module):
    """E networks of one architecture in batched products: many small networks cost little more than one.

    Its input x (E B, *S), with sigma (E B,), holds E blocks of B rows, one for each network, and so does its output
    (E B, *S). `denoiser.pair` and the losses therefore work unchanged. Each network has its own weights and gradient;
    train with clip=None, because clipping would use the norm of all gradients together. Attributes that are neither
    parameters nor buffers, such as `sigma_data`, are those of the first network. Buffers stay on their device.

    Raises:
        ValueError: if the tensors of the networks differ in name or shape.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        shapes = {tuple((name, t.shape) for name, t in net.state_dict().items()) for net in nets}
        if len(shapes) != 1:
            raise ValueError(f"a stack takes networks of one architecture, and these have {len(shapes)}")
        weights, buffers = torch.func.stack_module_state(list(nets))
        self.count, self.names = len(nets), list(weights)
        self.weights = nn.ParameterList(weights.values())  # a list, since the name of a parameter may not contain dots
        self.buffers_of = buffers
        self._one = [
            copy.deepcopy(nets[0]).requires_grad_(False)
        ]  # in a list, so that its weights are not parameters of the stack

    def forward(self, x: Float[Tensor, " b *s"], sigma: PerSample) -> Float[Tensor, " b *s"]:
        """x (E B, *S), sigma (E B,) or () -> (E B, *S)."""

        def one(weights: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, sigma: Tensor) -> Tensor:
            return torch.func.functional_call(self._one[0], (weights, buffers), (x, sigma))

        weights = dict(zip(self.names, self.weights, strict=True))
        blocks = x.unflatten(0, (self.count, -1))
        levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x)).unflatten(0, (self.count, -1))
        return torch.func.vmap(one)(weights, self.buffers_of, blocks, levels).flatten(0, 1)

    def unstack(self) -> list[nn.Module]:
        """The E networks as separate modules, with copies of their weights."""
        nets = [copy.deepcopy(self._one[0]) for _ in range(self.count)]
        for i, net in enumerate(nets):
            rows = {name: weight[i].detach() for name, weight in zip(self.names, self.weights, strict=True)}
            net.load_state_dict(rows | {name: buffer[i] for name, buffer in self.buffers_of.items()})
        return nets
