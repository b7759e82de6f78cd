"""Log-likelihood of a denoiser by its probability-flow ODE, its variational bound, and bits per dimension.

The flow dx/dsigma = (x - D(x, sigma)) / sigma carries data to noise; the density changes by its divergence alone:

    log p_min(x(sigma_min)) = log p_max(x(sigma_max)) + integral of div((x - D) / sigma) dsigma.

The solver works in u = log sigma and z = x / c with c^2 = 1 + sigma^2. There the field is flat at both ends: below the
finest scale of the data x - D vanishes as sigma^2, and above the coarsest scale z does not move. The steps are small
only between the two scales. The part of the divergence that is due to the noise, d log c, is known in closed form; it
is subtracted from the integrand and added to the result.

An error dx at level sigma changes the answer by score * dx, whatever the later steps do, so this product sets the step:
tol bounds its estimate in nats per dimension, for the worst sample of the batch. (SciPy averages over all samples; at
equal tol its worst sample has an error some ten times larger.)
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from memlib.denoiser import Denoiser, evaluated
from memlib.errors import Refused
from memlib.likelihood._flow import Flow
from memlib.likelihood._terminal import from_denoiser, given, prior
from memlib.likelihood.variational import VariationalBound, variational_bound
from memlib.shapes import Float, Shaped

__all__ = [
    "LogLikelihood",
    "VariationalBound",
    "bits_per_dim",
    "dequantise",
    "log_likelihood",
    "prior",
    "variational_bound",
]

MAX_EVALUATIONS = 20_000  # a smooth denoiser takes 50 to 500; a flow that takes more cannot be integrated
MAX_TRACE = 4096  # largest d for which the exact trace, of d VJPs an evaluation, is offered
_LONGEST = 1.0  # step in log sigma: a field flat over many decades must not make the solver skip a feature

# Dormand & Prince 1980, RK5(4)7M: nodes, stages (the last is the fifth-order solution), fifth minus fourth order.
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    (1 / 5, 0.0, 0.0, 0.0, 0.0, 0.0),
    (3 / 40, 9 / 40, 0.0, 0.0, 0.0, 0.0),
    (44 / 45, -56 / 15, 32 / 9, 0.0, 0.0, 0.0),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0.0, 0.0),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0.0),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


class LogLikelihood(NamedTuple):
    """Log-likelihoods and their standard errors over the probes, each (B,), in nats, or bits after `bits_per_dim`."""

    value: Float[Tensor, " b"]
    stderr: Float[Tensor, " b"]


def log_likelihood(
    denoiser: Denoiser,
    x0: Shaped[Tensor, "..."],
    sigma_min: float,
    sigma_max: float,
    probes: int | Float[Tensor, "..."] | None = None,
    terminal: Callable[[Tensor], Tensor] | None = None,
    tol: float = 1e-5,
) -> LogLikelihood:
    """Log-density of the model at level sigma_min, in nats, at the points x0 (B, *S). Song et al. 2021, eq. 39.

    The value is log p_{sigma_min}(x0), the density of data plus noise of std sigma_min. No noise is added to x0. For
    sigma_min below the finest scale of the data it approximates the density of clean data. A memorizer has no such
    density: at a training point its value grows as -log sigma_min.

    The solver is Dormand-Prince 5(4) with adaptive steps, the same for all samples of the batch, on the device and in
    the dtype of x0; traces are summed in float64. Parameters receive no gradient, and no_grad may be on.
    Networks are in evaluation mode while they are called here.

    Arguments:
        denoiser: D(x, sigma), differentiable in x.
        x0: points (B, *S), d coordinates each.
        sigma_min: the level of the density.
        sigma_max: the level at which the flow ends.
        probes: None for the exact trace, of d VJPs an evaluation; P for Hutchinson's estimate from P Rademacher
            probes, fixed along the path and equal in every call; or a tensor (P, B, *S) of probes, such as
            `noise.seeded(names)(x0).sign()[None]`.
        terminal: log-density (B, *S) -> (B,) at level sigma_max. The default takes mean and spread from the denoiser
            there. For Gaussian data of any mean and covariance it errs by less than the sum of |e|^3 / 3 nats over the
            d principal directions, where e < 1/2 is how far sigma_max^2 / (sigma_max^2 + variance) is from its mean,
            relative to it. For other data, one cloud at sigma_max, the error is about the sum of the fourth cumulants /
            8 sigma_max^4; it is estimated, and announced beyond .05 nats and .001 a dimension. For a mixture,
            `lambda x: mixture.log_prob(x, sigma_max)` is exact. `prior(sigma_max)` is that of a generative model, whose
            sampling starts from N(0, sigma_max^2 I) whatever its denoiser says.
        tol: largest error of a step in nats per dimension. Use float64 below about 1e-6.

    Returns:
        Log-densities (B,) and their standard errors (B,): the standard deviation over probes / sqrt(P), which is 0 for
        the exact trace and nan for P = 1. The error of the solver is not included.

    Raises:
        Refused: if an argument makes no sense, d > 4096 for the exact trace, the denoiser is not differentiable in x or
            becomes NaN, MAX_EVALUATIONS do not reach sigma_max, or, for the default terminal, the denoiser has no
            centre there.

    Warns:
        UserWarning: if sigma_max is so low, or the data so far from Gaussian, that the default terminal may be off.
    """
    sigma_min, sigma_max = float(sigma_min), float(sigma_max)
    if not 0 < sigma_min < sigma_max < math.inf:
        raise Refused(f"the flow needs 0 < sigma_min < sigma_max, not sigma_min={sigma_min}, sigma_max={sigma_max}")
    if not tol > 0:
        raise Refused(f"tol is an error in nats per dimension and must be positive, not {tol}")
    if not x0.is_floating_point() or x0.ndim < 2:
        raise Refused(f"x0 must be floating point of shape (B, *S), not {x0.dtype} of shape {tuple(x0.shape)}")
    with torch.inference_mode(False):
        x0 = x0.detach().clone()  # a tensor made under inference_mode cannot carry gradients
        flow = Flow(evaluated(denoiser), _probes(probes, x0), exact=probes is None)
        x, gained = _integrate(flow, x0, math.log(sigma_min), math.log(sigma_max), tol)
        end = from_denoiser(flow, x, sigma_max) if terminal is None else given(terminal, x)
    values = gained + end  # (P, B)
    count = len(values)
    stderr = torch.zeros_like(values[0])
    if probes is not None:
        stderr = values.std(0) / math.sqrt(count) if count > 1 else torch.full_like(stderr, math.nan)
    return LogLikelihood(values.mean(0).to(x0), stderr.to(x0))


Nats = TypeVar("Nats", Tensor, LogLikelihood)


def bits_per_dim(nats: Nats, dims: int, bits: int | None = None, low: float = -1.0, high: float = 1.0) -> Nats:
    """Negative log-likelihood in bits per dimension, -nats / (d log 2) + k - log2(high - low).

    Theis et al. 2016, sec. 3.1. Data of 2^k levels that `dequantise` has scaled to [low, high] have bins of width
    (high - low) / 2^k. In each dimension the probability of a bin is at least exp E[log density] times this width. A
    uniform density costs exactly k bits. (score_sde adds 7 for centred and 8 for uncentred data, right for k = 8 only.)

    Arguments:
        nats: log-likelihoods, a Tensor (B,) or a LogLikelihood.
        dims: d, the coordinates of a sample.
        bits: k; None leaves the offset k - log2(high - low) out, for the density itself.
        low: the value of the lowest level.
        high: the value of the highest level.

    Returns:
        Bits per dimension, in the form of `nats`.

    Raises:
        Refused: if dims < 1, bits < 1 or low >= high.
    """
    if dims < 1 or (bits is not None and bits < 1) or not low < high:
        raise Refused(f"bits per dim need dims >= 1, bits >= 1 and low < high, not {dims}, {bits}, {low}, {high}")
    offset = 0.0 if bits is None else bits - math.log2(high - low)
    unit = dims * math.log(2)
    if isinstance(nats, LogLikelihood):
        return LogLikelihood(offset - nats.value / unit, nats.stderr / unit)
    return offset - nats / unit


def dequantise(
    images: Float[Tensor, "*s"], bits: int, generator: torch.Generator, low: float = -1.0, high: float = 1.0
) -> Float[Tensor, "*s"]:
    """Images of 2^bits levels in [low, high], both ends included, spread uniformly over their bins; same shape.

    Level v becomes (v + u) / 2^bits with u uniform in [0, 1), scaled to [low, high]. Uria et al. 2013.

    Raises:
        Refused: if a value is not on a level.
    """
    levels = (images.double() - low) / (high - low) * (2**bits - 1)
    level = levels.round()
    if not ((levels - level).abs().max() <= 1e-2 and level.min() >= 0 and level.max() <= 2**bits - 1):  # nor for nan
        raise Refused(f"these images do not hold {2**bits} levels in [{low}, {high}]: check bits and the scaling")
    u = torch.rand(images.shape, generator=generator, dtype=torch.float64, device=generator.device).to(images.device)
    return (low + (high - low) * (level + u) / 2**bits).to(images)


def _probes(probes: int | Tensor | None, x0: Tensor) -> Tensor:
    """Vectors whose quadratic forms give the trace: all unit vectors (d, 1, *S), or probes (P, B, *S)."""
    size = x0[0].numel()
    if probes is None:
        if size > MAX_TRACE:
            raise Refused(f"an exact trace in {size} dimensions takes {size} VJPs an evaluation: give probes=8, say")
        return torch.eye(size, dtype=x0.dtype, device=x0.device).reshape(size, 1, *x0.shape[1:])
    if isinstance(probes, Tensor):
        if probes.shape[1:] != x0.shape or not len(probes):
            raise Refused(f"probes for x0 {tuple(x0.shape)} must be (P, *x0.shape), not {tuple(probes.shape)}")
        return probes.to(x0)
    if probes < 1:
        raise Refused(f"probes must be at least 1, or None for the exact trace, not {probes}")
    # Sample first: the probes of a sample then do not depend on how many follow it in the batch.
    coins = torch.randint(2, (len(x0), probes, *x0.shape[1:]), generator=torch.Generator().manual_seed(0))
    return (2 * coins - 1).transpose(0, 1).to(x0)


def _integrate(flow: Flow, x: Tensor, start: float, stop: float, tol: float) -> tuple[Tensor, Tensor]:
    """Carry x (B, *S) from log sigma = start to stop; the end point, and the integral of the trace, (P, B)."""
    size, rounding = x[0].numel(), 4 * torch.finfo(x.dtype).eps

    def field(z: Tensor, u: float) -> tuple[Tensor, Tensor, Tensor]:
        """dz/du (B d,), the integrand without the part of the noise (P B,), and minus the score of z, (B, d)."""
        square = math.exp(2 * u)
        scale, part = math.sqrt(1 + square), square / (1 + square)
        residual, trace = flow(z.view_as(x) * scale, math.exp(u))
        residual = residual.flatten(1)
        return residual.flatten() / scale - part * z, (trace - size * part).flatten(), residual * (scale / square)

    stages = torch.tensor(_STAGES, dtype=x.dtype, device=x.device)  # (7, 6)
    estimate = torch.tensor(_ERROR, dtype=torch.float64, device=x.device)  # (7,)
    z, u = x.flatten() / math.sqrt(1 + math.exp(2 * start)), start
    slope, rate, score = field(z, u)
    slopes, rates = z.new_empty(7, len(z)), rate.new_empty(7, len(rate))
    gained = torch.zeros_like(rate)
    step, last, rejected = min(0.1, stop - start), 1.0, False
    while stop - u > 1e-12:
        step = min(step, stop - u)
        slopes[0], rates[0] = slope, rate
        for i, node in enumerate(_NODES[1:], 1):
            z_next = torch.addmv(z, slopes[:i].T, stages[i, :i], alpha=step)
            slopes[i], rates[i], score_next = field(z_next, u + node * step)
        # Nats per dimension: score * dz to first order; the rms of dz itself keeps the second order small.
        off = step * (estimate.to(z) @ slopes).view(len(x), -1)
        error_z = torch.maximum(_rms(off), torch.maximum((off * score).mean(1).abs(), (off * score_next).mean(1).abs()))
        # An error cannot be made smaller than rounding, which in float32, far from the data, can be larger than tol.
        floor = rounding * _rms(z.view(len(x), -1)) * torch.maximum(_rms(score), _rms(score_next))
        error_z = error_z / floor.clamp_min(tol)
        # For the trace, the error of its mean over probes counts, since the mean is the value reported.
        error_trace = step / size * (estimate @ rates).view(-1, len(x)).mean(0).abs()
        error_trace = error_trace / (rounding / size * rate.abs().view(-1, len(x)).mean(0)).clamp_min(tol)
        error = float(torch.maximum(error_z, error_trace).max())  # the one host sync of a step
        if error <= 1:
            gained = torch.addmv(gained, rates[:6].T, stages[6].double(), alpha=step)
            z, u, score = z_next, u + step, score_next
            slope, rate = slopes[6].clone(), rates[6].clone()  # the last stage is the next step's first
            # PI control with the constants of dopri5 (Hairer & Wanner, sec. IV.2): the last error damps the swing.
            factor = 0.9 * max(error, 1e-6) ** -0.17 * last**0.04
            step = min(step * min(factor, 1.0 if rejected else 5.0), _LONGEST)
            last, rejected = max(error, 1e-6), False
        else:
            step *= max(0.2, 0.9 * error ** (-1 / 5)) if math.isfinite(error) else 0.2
            rejected = True
        if rejected and step < 1e-9:
            fault = f"too rough for tol={tol}" if math.isfinite(error) else "NaN or infinite"
            raise Refused(f"the denoiser is {fault} at sigma={math.exp(u):.4g}: check it there, or raise sigma_min")
        if flow.evaluations > MAX_EVALUATIONS:
            raise Refused(
                f"the flow came only to sigma={math.exp(u):.4g} in {MAX_EVALUATIONS} evaluations of the denoiser: "
                f"raise tol={tol} or sigma_min, or leave points far from all data out of the batch"
            )
    noise = 0.5 * size * (math.log1p(math.exp(2 * stop)) - math.log1p(math.exp(2 * start)))
    return z.view_as(x) * math.sqrt(1 + math.exp(2 * stop)), gained.view(-1, len(x)) + noise


def _rms(rows: Tensor) -> Tensor:
    """(B, d) -> (B,)."""
    return rows.square().mean(1).sqrt()
