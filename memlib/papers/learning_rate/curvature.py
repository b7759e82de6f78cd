"""Sharpness: the largest eigenvalue of the Hessian in the coordinates of an update, for a whole stack at once.

Gradient descent theta <- theta - eta P grad R is linearly stable at a minimum only if the largest eigenvalue of
P^1/2 H P^1/2 is at most 2 / eta. The update of the slides has P = m, so m lambda_max(H) is compared with 2 / eta. For
Adam P is 1 / sqrt(second moment). It changes slowly, and with a first moment of beta_1 the line is
(2 + 2 beta_1) / ((1 - beta_1) eta), 38 / eta at beta_1 = 0.9. Cohen et al. 2022, arXiv:2207.14484.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from memlib.errors import Refused
from memlib.papers.learning_rate.descent import ScoreNetworks
from memlib.papers.learning_rate.fixed_level import NoisyBatch, Problem, risk
from memlib.papers.learning_rate.shallow import TwoLayer
from memlib.random import keyed


def sharpness(
    net: ScoreNetworks,
    batch: NoisyBatch,
    problem: Problem | None = None,
    iterations: int = 24,
    seed: int = 0,
    scale: Sequence[float] | Sequence[Tensor] | None = None,
) -> Tensor:
    """Largest eigenvalue of P^1/2 H P^1/2 of the risk on a batch with y (M, B, d), by Lanczos' method.

    Hessian-vector products come from autograd, one for all members. The basis is orthogonalised twice, and the start
    is the same random direction whatever the stack.

    Arguments:
        problem: adds the contribution of the kinks of a `TwoLayer` for d = 1 (`TwoLayer.kinks`). This gives the Hessian
            of R_n itself; a mean over finitely many rows cannot see it.
        iterations: the estimate grows with them and converges from below. The number of parameters is enough.
        scale: P, an entry for each trained tensor, such as `Progress.scale`; None is `net.lr_scale`.

    Returns:
        One value for each member, (M,).

    Raises:
        Refused: for a `problem` with networks or points whose kinks are not known.
    """
    leaves = [p.detach().requires_grad_() for p in net.trained]
    lr_scales = [one**0.5 for one in (net.lr_scale if scale is None else scale)]
    with torch.enable_grad():
        grads = torch.autograd.grad(risk(net.with_parameters(leaves), batch).sum(), leaves, create_graph=True)
    if problem is not None and (problem.points.shape[2] != 1 or not hasattr(net, "kinks")):
        raise Refused("kinks are known for a TwoLayer on a line: leave out `problem`")
    extra = [torch.zeros_like(p) for p in leaves] if problem is None else cast(TwoLayer, net).kinks(problem)
    sizes = [p[0].numel() for p in leaves]

    def product(v: Tensor) -> Tensor:
        parts = [x.view_as(p) * c for x, p, c in zip(v.split(sizes, 1), leaves, lr_scales, strict=True)]
        images = torch.autograd.grad(grads, leaves, parts, retain_graph=True)
        images = [(h + k * x) * c for h, k, x, c in zip(images, extra, parts, lr_scales, strict=True)]
        return torch.cat([h.flatten(1) for h in images], 1)

    start = torch.randn(sum(sizes), generator=keyed(seed, 0), dtype=torch.float64).to(leaves[0])
    return _lanczos(product, start.expand(len(leaves[0]), -1), min(iterations, sum(sizes)))


def _lanczos(product, start: Tensor, iterations: int) -> Tensor:
    """Largest Ritz value of M symmetric maps (M, P) -> (M, P) on the Krylov space of `start`, (M,)."""
    basis = (start / start.norm(dim=1, keepdim=True))[:, None]  # (M, 1, P)
    images = []
    for k in range(iterations):
        image = product(basis[:, k])
        images.append(image)
        for _ in range(2):
            image = image - torch.einsum("mkp,mk->mp", basis, torch.einsum("mkp,mp->mk", basis, image))
        length = image.norm(dim=1, keepdim=True)
        # An exhausted space goes on with zeros, which below stand for an eigenvalue that is not the largest.
        fresh = torch.where(length > 1e-10 * images[-1].norm(dim=1, keepdim=True), image / length, 0.0)
        basis = torch.cat([basis, fresh[:, None]], 1)
    projected = torch.einsum("mjp,mkp->mjk", basis[:, :-1], torch.stack(images, 1))
    diagonal = projected.diagonal(dim1=1, dim2=2)
    diagonal.copy_(torch.where(basis[:, :-1].norm(dim=2) < 0.5, diagonal.amin(1, keepdim=True), diagonal))
    return torch.linalg.eigvalsh(0.5 * (projected + projected.transpose(1, 2)))[:, -1]
