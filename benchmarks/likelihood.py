"""Likelihood against a score_sde-like loop (Song et al. 2021): SciPy's RK45 on the host, drift and divergence apart.

Both integrate the same probability flow of the same network, with the same Rademacher probe, from the same points, at
the same tol; the last row gives ours a tol at which its worst sample is no worse than the peer's. `agrees` holds where
neither differs from a float64 run at tol 1e-7 by more than a thousandth of a nat per dimension. Prints one JSON row a
size: `python benchmarks/likelihood.py`.
"""

import copy
import json
import math
from functools import partial

import numpy as np
import torch
from interleaved import DEVICE, clock, compared, part_of
from scipy.integrate import solve_ivp
from sklearn.datasets import load_digits
from torch import Tensor, nn

from memlib import nets, noise
from memlib.likelihood import log_likelihood, prior

SIGMA_MIN, SIGMA_MAX, TOL, TARGET = 0.01, 50.0, 1e-5, 1.4
END = prior(SIGMA_MAX)  # as the peer assumes it


def peer(denoiser: nn.Module, x0: Tensor, probe: Tensor, tol: float = TOL) -> tuple[Tensor, int]:
    """Log-likelihood as score_sde computes it for the VE SDE (its likelihood.py), and the calls of the field."""
    shape, ratio = x0.shape, math.log(SIGMA_MAX / SIGMA_MIN)

    def drift(x: Tensor, t: float) -> Tensor:
        return ratio * (x - denoiser(x, torch.full((len(x),), SIGMA_MIN * math.exp(ratio * t), device=x.device)))

    def field(t: float, state: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(state[: x0.numel()].reshape(shape)).to(x0)
        with torch.no_grad():
            velocity = drift(x, t)
        with torch.enable_grad():
            x.requires_grad_(True)
            gradient = torch.autograd.grad((drift(x, t) * probe).sum(), x)[0]
        divergence = (gradient * probe).flatten(1).sum(1)
        return np.concatenate([velocity.cpu().numpy().reshape(-1), divergence.cpu().numpy()])

    start = np.concatenate([x0.cpu().numpy().reshape(-1), np.zeros(len(x0))])
    found = solve_ivp(field, (0.0, 1.0), start, rtol=tol, atol=tol, method="RK45")
    end, gained = found.y[: x0.numel(), -1].reshape(shape), found.y[x0.numel() :, -1]
    square = (end.reshape(len(end), -1) ** 2).sum(1)
    size = x0[0].numel()
    prior = -size / 2 * math.log(2 * math.pi * SIGMA_MAX**2) - square / (2 * SIGMA_MAX**2)
    return torch.from_numpy(prior + gained), found.nfev


def bare(denoiser: nn.Module, x0: Tensor, calls: int) -> None:
    """As many calls of the network, whose weights want no gradient, with one vector-Jacobian product each."""
    denoiser = copy.deepcopy(denoiser).requires_grad_(False)
    for _ in range(calls):
        leaf = x0.detach().requires_grad_()
        torch.autograd.grad(denoiser(leaf, torch.ones(len(x0), device=x0.device)).sum(), leaf)


def trained(net: nn.Module, data: Tensor, steps: int) -> nn.Module:
    """A denoiser fitted for a moment: an untrained one is linear, too easy a flow for either solver."""
    generator = torch.Generator().manual_seed(0)
    model = nets.Preconditioned(net, float(data.std()))
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(steps):
        x0 = data[torch.randint(len(data), (128,), generator=generator)]
        sigma = noise.lognormal(len(x0), -0.5, 1.2, generator)
        error = model(noise.add_noise(x0, sigma, noise.noise_from(generator)), sigma) - x0
        loss = ((error / noise.expand_sigma(sigma, x0)) ** 2 * noise.expand_sigma(model.weight(sigma), x0)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.to(DEVICE).eval()


def row(size: str, denoiser: nn.Module, x0: Tensor, tol: float = TOL, repeats: int = 7) -> dict:
    """Interleaved timings of both, minimum wall time, and the largest distance of each to the reference.

    The peer runs at TOL, ours at `tol`.
    """
    calls = [0]

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        calls[0] += 1
        return denoiser(x, sigma)

    coins = torch.randint(2, x0.shape, generator=torch.Generator().manual_seed(1))
    probe, x0 = 2.0 * coins.to(DEVICE) - 1, x0.to(DEVICE)
    theirs, evaluations = peer(denoiser, x0, probe)
    ours = log_likelihood(counted, x0, SIGMA_MIN, SIGMA_MAX, probe[None], END, tol=tol).value
    double = copy.deepcopy(denoiser).double()
    exact = log_likelihood(double, x0.double(), SIGMA_MIN, SIGMA_MAX, probe[None].double(), END, tol=TOL / 100).value
    times = []
    for _ in range(repeats):
        start = clock()
        peer(denoiser, x0, probe)
        middle = clock()
        log_likelihood(denoiser, x0, SIGMA_MIN, SIGMA_MAX, probe[None], END, tol=tol)
        times.append((middle - start, clock() - middle))
    off = [float((v.cpu() - exact.cpu()).abs().max()) for v in (ours, theirs)]
    reason = (
        f"{calls[0]} evaluations (one forward) against {evaluations} (two forwards); largest error of a sample "
        f"{off[0]:.1e} against {off[1]:.1e} nats"
    )
    return {
        "path": "likelihood", "peer": "score_sde-like loop, scipy RK45, one probe", "size": size,
        **compared(times), "target": TARGET, "agrees": max(off) < 1e-3 * x0[0].numel(), "reason": reason,
        "of_limit": part_of(partial(bare, denoiser, x0, calls[0]), min(ours for _, ours in times), repeats),
    }  # fmt: skip


def main() -> None:
    """Print one row a size."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    toy = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)) * 0.5
    toy = toy + 2 * (torch.arange(2000) % 3 - 1)[:, None]
    digits = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    digits = digits - digits.mean(0)
    print(json.dumps(row("MLP 3x128, d=2, B=256", trained(nets.MLP(2), toy, 300), toy[:256])), flush=True)
    model = trained(nets.ResidualMLP((1, 8, 8)), digits, 300)
    print(json.dumps(row("residual MLP h=256, digits d=64, B=16", model, digits[:16])), flush=True)
    print(json.dumps(row("residual MLP h=256, digits d=64, B=128", model, digits[:128])), flush=True)
    equal = row("residual MLP h=256, digits d=64, B=128, tol 3e-5", model, digits[:128], 3 * TOL)
    print(json.dumps(equal), flush=True)


if __name__ == "__main__":
    main()
