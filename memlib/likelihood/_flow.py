"""The field of the probability-flow ODE and the trace of its Jacobian, from a denoiser."""

from collections.abc import Iterator

import torch
from torch import Tensor

from memlib.denoiser import Denoiser
from memlib.errors import Refused

_CELLS = 1 << 20  # numbers in the VJPs held at once; a network's activations are some hundred times wider


class Flow:
    """x - D and the trace of its Jacobian, from one forward pass and one batch of VJPs.

    `probes` (P, B, *S) are vectors whose quadratic forms give the trace: each an estimate, or all together if `exact`.
    """

    def __init__(self, denoiser: Denoiser, probes: Tensor, exact: bool) -> None:
        self.denoiser, self.probes, self.exact = denoiser, probes, exact
        self.evaluations, self.batched = 0, len(probes) > 1

    def __call__(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """x - D (B, *S), and tr(I - dD/dx) as (1, B), or as one estimate per probe (P, B), in float64."""
        residual, x = self._residual(x, sigma)
        forms = [(p * v).flatten(2).sum(2) for p, v in self._products(residual, x)]
        return residual.detach(), self._summed(forms)

    def moments(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """tr A and tr A A^T of A = I - dD/dx at x (B, *S), each as (1, B), or one estimate per probe (P, B)."""
        forms, squares = [], []
        for p, v in self._products(*self._residual(x, sigma)):
            forms.append((p * v).flatten(2).sum(2))
            squares.append(p.flatten(2).square().sum(2))
        return self._summed(forms), self._summed(squares)

    @torch.no_grad()
    def mean(self, x: Tensor, sigma: float) -> Tensor:
        """D(x, sigma), (B, *S)."""
        return self.denoiser(x, torch.full((), sigma, dtype=x.dtype, device=x.device))

    def _residual(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """x - D and the x that its graph leads to, each (B, *S)."""
        self.evaluations += 1
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            mean = self.denoiser(x, torch.full((), sigma, dtype=x.dtype, device=x.device))
            if mean.shape != x.shape or not mean.requires_grad or not self._leads_to(mean, x):
                raise Refused(
                    f"the denoiser must return a tensor of the shape of x, {tuple(x.shape)}, differentiable in x (no "
                    f"no_grad or detach inside), not {tuple(mean.shape)} with requires_grad={mean.requires_grad}"
                )
            return x - mean, x

    def _leads_to(self, mean: Tensor, x: Tensor) -> bool:
        """Whether the graph of D leads to x. Parameters that want gradients have a graph without it. Looked at once."""
        if self.evaluations > 1:
            return True
        return torch.autograd.grad(mean.sum(), x, retain_graph=True, allow_unused=True)[0] is not None

    def _products(self, residual: Tensor, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """v A with A = d residual / dx, and v, each (p, B, *S), for blocks of the probes."""
        for block in self.probes.split(max(1, _CELLS // x.numel())):
            vectors = block.expand(-1, *x.shape)
            yield self._vjps(residual, x, vectors), vectors

    def _vjps(self, residual: Tensor, x: Tensor, vectors: Tensor) -> Tensor:
        if self.batched:
            try:
                return torch.autograd.grad(residual, x, vectors, retain_graph=True, is_grads_batched=True)[0]
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # an operation that vmap does not know: one VJP at a time from here on
                self.batched = False
        return torch.stack([torch.autograd.grad(residual, x, v, retain_graph=True)[0] for v in vectors])

    def _summed(self, parts: list[Tensor]) -> Tensor:
        rows = torch.cat(parts).double()  # (P, B)
        return rows.sum(0, keepdim=True) if self.exact else rows
