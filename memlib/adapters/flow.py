"""A network trained by flow matching as a denoiser: its straight path is the same path, in another clock.

    x_t = (1 - t) x0 + t eps = (1 - t) (x0 + sigma eps)   with sigma = t / (1 - t)

The network predicts the velocity v = eps - x0, so x0 = x_t - t v. Lipman et al. 2023; Liu et al. 2023. In this clock,
`sample.ancestral` with eta = 0 takes the Euler steps that flow models are sampled with.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from memlib.adapters.calling import Labels, predicted
from memlib.errors import Refused
from memlib.noise import expand_sigma
from memlib.shapes import Float, PerSample

_LARGEST = 1e5  # sigma that stands for t = 1, where it would be infinite: the rounding of float32


def from_flow(net: Callable[..., Tensor], *, timesteps: float = 1000.0) -> "Flow":
    """The denoiser of a network that predicts v = eps - x0, (B, *S) -> (B, *S).

    Arguments:
        net: net(x_t, t), or net(x_t, t, y) with labels, with t (B,) in [0, timesteps]. It returns the velocity (B, *S),
            as a tensor or, as the models of diffusers, in `.sample`. It is called in its own dtype.
        timesteps: the t of pure noise as the network numbers it: 1000 for models of diffusers, 1 for others.

    Returns:
        A `Flow`, a module that can be trained, moved and copied.

    Raises:
        Refused: for a number of timesteps that is not positive.
    """
    return Flow(net, timesteps)


class Flow(nn.Module):
    """The denoiser that `from_flow` returns, D(x, sigma): x at any level of 0 or more."""

    def __init__(self, net: Callable[..., Tensor], timesteps: float = 1000.0) -> None:
        super().__init__()
        if not timesteps > 0:
            raise Refused(f"pure noise has a timestep above 0, such as 1000 or 1, not {timesteps}")
        self.net, self.timesteps = net, float(timesteps)
        self._labels = Labels()

    def forward(
        self, x: Float[Tensor, " b *s"], sigma: PerSample, y: int | Tensor | None = None
    ) -> Float[Tensor, " b *s"]:
        """x (B, *S) at level sigma, a float, () or (B,), and labels y, one, (B,) or None -> (B, *S), like x."""
        level = expand_sigma(sigma, x)
        t = level / (1 + level)
        seen = x / (1 + level)
        weight = next(self.net.parameters(), x) if isinstance(self.net, nn.Module) else x
        clock = (t.flatten(1)[:, 0].expand(len(x)) * self.timesteps).to(weight.dtype)
        velocity = predicted(self.net, seen, clock, self._labels(self.net, y, seen))
        return seen - t * velocity.to(x.dtype)

    def grid(self, n: int, shift: float = 1.0) -> Float[Tensor, " m"]:
        """The levels of n steps that are equal in t, (n + 1,), decreasing to 0.

        Arguments:
            n: steps.
            shift: t becomes shift t / (1 + (shift - 1) t), more steps at large noise. Esser et al. 2024, eq. 23.

        Raises:
            Refused: for fewer than 1 step, and for a shift that is not positive.
        """
        if n < 1 or not shift > 0:
            raise Refused(f"a grid has 1 step or more and a shift above 0, not {n} and {shift}")
        t = torch.linspace(1, 0, n + 1, dtype=torch.float64)
        t = shift * t / (1 + (shift - 1) * t)
        return (t / (1 - t)).clamp(max=_LARGEST)
