"""Several networks of one architecture that train as one."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from memlib.errors import Refused
from memlib.shapes import Float, Int, PerSample


class Stack(nn.Module):
    """E networks of one architecture in batched products: many small networks cost little more than one.

    Its input x (E B, *S), with sigma (E B,), holds E blocks of B rows, one for each network, and so does its output
    (E B, *S); labels (E B,), where the networks take them, likewise. `denoiser.pair` and the losses therefore work
    unchanged. Each network has its own weights, buffers and
    gradient; train with clip=None, because clipping would use the norm of all gradients together. Weights that are
    frozen in the networks stay frozen. Attributes that are neither parameters nor buffers are those of the first.

    Raises:
        Refused: for no network, and if the tensors of the networks differ in name or shape.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        shapes = {tuple((name, t.shape) for name, t in net.state_dict().items()) for net in nets}
        if len(shapes) != 1:
            raise Refused(f"a stack takes networks of one architecture, and these have {len(shapes)}: stack each apart")
        weights, buffers = torch.func.stack_module_state(list(nets))
        self.count, self.names, self._buffer_names = len(nets), list(weights), list(buffers)
        # A list, since the name of a parameter may not contain dots. What is frozen stays frozen.
        self.weights = nn.ParameterList(nn.Parameter(w, w.requires_grad) for w in weights.values())
        for i, buffer in enumerate(buffers.values()):
            self.register_buffer(f"buffer_{i}", buffer)
        self._one = [
            copy.deepcopy(nets[0]).requires_grad_(False)
        ]  # in a list, so that its weights are not parameters of the stack
        self.train(nets[0].training)

    @property
    def buffers_of(self) -> dict[str, Tensor]:
        """The buffers of the networks by name, (E, ...) each."""
        return {name: self.get_buffer(f"buffer_{i}") for i, name in enumerate(self._buffer_names)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Stack":
        self._one[0]._apply(fn)  # `unstack` copies it, with its device and dtype
        return super()._apply(fn, recurse)

    def forward(
        self, x: Float[Tensor, " b *s"], sigma: PerSample, y: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b *out"]:
        """x (E B, *S), sigma (E B,) or (), labels y (E B,) or None -> (E B, *S), or logits (E B, K) of classifiers."""

        def one(weights: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Tensor) -> Tensor:
            return torch.func.functional_call(self._one[0], (weights, buffers), inputs)

        if self._one[0].training != self.training:
            self._one[0].train(self.training)
        weights = dict(zip(self.names, self.weights, strict=True))
        blocks = x.unflatten(0, (self.count, -1))
        levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x)).unflatten(0, (self.count, -1))
        condition = () if y is None else (y.unflatten(0, (self.count, -1)),)
        return torch.func.vmap(one)(weights, self.buffers_of, blocks, levels, *condition).flatten(0, 1)

    def unstack(self) -> list[nn.Module]:
        """The E networks as separate modules, with copies of their weights and buffers."""
        nets = [copy.deepcopy(self._one[0]).train(self.training) for _ in range(self.count)]
        stacked = dict(zip(self.names, self.weights, strict=True)) | self.buffers_of
        with torch.no_grad():
            for i, net in enumerate(nets):
                for name, own in (*net.named_parameters(), *net.named_buffers()):
                    own.copy_(stacked[name][i]).requires_grad_(stacked[name].requires_grad)
        return nets
