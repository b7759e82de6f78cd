"""A network of T discrete noise levels as a denoiser: scale its input, number its level, convert its output to x0."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from memlib.adapters import schedule as scheduling
from memlib.adapters.calling import Labels, predicted
from memlib.denoiser import Variance
from memlib.errors import Refused
from memlib.noise import discrete, discrete_levels, expand_sigma

_NEAR = 1e-3  # largest relative distance of a sigma to its level: at t = 0, alpha_bar in float32 is no more exact


def from_discrete(
    net: Callable[..., Tensor],
    alphas_cumprod: Tensor,
    predicts: Literal["eps", "v", "x0"],
    *,
    between: Literal["refuse", "interpolate"] = "refuse",
) -> "Discrete":
    """The denoiser of a network that is trained at T levels, (B, *S) -> (B, *S).

    The network sees x_t = sqrt(alpha_bar_t) x and t < T. A level of pure noise (alpha_bar = 0, sigma = inf: zero
    terminal SNR, Lin et al. 2023) cannot be written as x = x_t / alpha_t and is left out of `sigmas`.

    Arguments:
        net: net(x_t, t), or net(x_t, t, y) with labels, with t (B,) int64. It returns its prediction (B, *S), as a
            tensor or, as the models of diffusers, in `.sample`. It is called in its own dtype. It may be untrained: the
            result is a module that can be trained and exported.
        alphas_cumprod: alpha_bar (T,), decreasing, within [0, 1); Ho et al. 2020, eq. 4.
        predicts: "eps", the noise; "v" = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022, sec. 4); or
            "x0".
        between: "refuse" or "interpolate" a sigma between two levels, where the network was never trained. A sampler on
            `denoiser.grid(n)` visits the levels only, and a continuous likelihood needs "interpolate": the network then
            gets a fractional t (B,) float32, linear in log sigma between the two levels.

    Returns:
        A `Discrete`. Called with a sigma outside the levels, or between them under "refuse", it raises Refused with the
        range of the levels. The dtype of its output is that of x.

    Raises:
        Refused: if an argument makes no sense, or the network has a learned table of timesteps that is too short or
            cannot be interpolated.
    """
    return Discrete(net, alphas_cumprod, predicts, between)


class Discrete(nn.Module):
    """The denoiser that `from_discrete` returns, D(x, sigma): a module to train, move, copy and export.

    `sigmas` (n + 1,) are its finite levels, decreasing, then 0. If the network comes from a diffusers folder, `shape`
    is the (C, H, W) of a sample and `schedule` the configuration of the scheduler; else both are None. `grid`,
    `variance` and `limit` are what the schedule says of sampling.
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        alphas_cumprod: Tensor,
        predicts: Literal["eps", "v", "x0"],
        between: Literal["refuse", "interpolate"] = "refuse",
    ) -> None:
        super().__init__()
        bar = torch.as_tensor(alphas_cumprod).detach().double().cpu()
        if predicts not in ("eps", "v", "x0"):
            raise Refused(f"a network predicts 'eps', 'v' or 'x0', not {predicts!r}")
        if between not in ("refuse", "interpolate"):
            raise Refused(f"between levels a denoiser can 'refuse' or 'interpolate', not {between!r}")
        discrete_levels(bar)  # refuses what is no alpha_bar
        table = getattr(net, "time_proj", None)
        if isinstance(table, nn.Embedding) and (between == "interpolate" or table.num_embeddings < len(bar)):
            raise Refused(
                f"the network learned a table of {table.num_embeddings} timesteps: it serves no more than as many "
                f"levels (alphas_cumprod has {len(bar)}), and none in between (between={between!r})"
            )
        self.net, self.alphas_cumprod, self.predicts, self.between = net, bar, predicts, between
        self.training = net.training if isinstance(net, nn.Module) else True
        self.sigmas = discrete(bar)
        self.shape: tuple[int, int, int] | None = None
        self.schedule: dict[str, Any] | None = None
        self._labels = Labels()
        self._levels = self.sigmas[:-1].flip(0)  # (n,) increasing: at t = 0 ... n - 1
        self._logs = self._levels.log()
        self._borders = (self._levels[1:] * self._levels[:-1]).sqrt()  # (n - 1,) between nearest levels

    def forward(self, x: Tensor, sigma: float | Tensor, y: int | Tensor | None = None) -> Tensor:
        """x (B, *S) at level sigma, a float, () or (B,) -> posterior mean (B, *S).

        A class-conditional network needs `y`, a label or (B,): bind it by `functools.partial(denoiser, y=y)`.
        """
        t, level = self._place(sigma)
        level = level.item() if len(level) == 1 else level  # one level for all: its coefficients stay Python floats
        alpha = (1 + level**2) ** -0.5
        skip, scale = {"eps": (1.0, -level), "v": (alpha**2, -alpha * level), "x0": (0.0, 1.0)}[self.predicts]
        alpha, skip, scale = (c if isinstance(c, float) else expand_sigma(c, x) for c in (alpha, skip, scale))
        seen = alpha * x
        labels = self._labels(self.net, y, seen)
        output = predicted(self.net, seen, t.to(x.device).expand(len(x)), labels).to(x.dtype)
        return skip * x + scale * output

    def grid(self, n: int | None = None) -> Tensor:
        """(n + 1,) levels to sample on in n steps, spaced and ended as the folder's scheduler says; None visits all.

        They are n where the scheduler ends at its lowest level and that level is also its last step.

        They are those of DDIMScheduler and DDPMScheduler, except where these fall short (`noise.discrete`). Without a
        folder, `noise.discrete(denoiser.alphas_cumprod, n)`.

        Raises:
            Refused: as `noise.discrete` does.
        """
        return scheduling.grid(self.alphas_cumprod, n, self.schedule or {})

    @property
    def variance(self) -> Variance:
        """Of new noise in a step of DDPM, as the folder's scheduler says; `sample.ancestral` with eta = 1 reads it."""
        return scheduling.variance(self.schedule or {})

    def limit(self, x0: Tensor) -> Tensor:
        """Estimates of x0 (B, *S), clipped or thresholded as the folder's scheduler does, or as they are.

        `sample.ancestral(D, ..., limit=D.limit)` is DDIMPipeline's default, `denoiser.limited(D, D.limit)` the denoiser
        of DDPMPipeline.
        """
        return scheduling.limited(x0, self.schedule or {})

    def weight(self, sigma: Tensor) -> Tensor:
        """(B,) weights for `losses.denoising` that weight the error of the network equally at every level.

        They are 1 where the network predicts eps, as in DDPM, 1 + sigma^2 for v and sigma^2 for x0.
        """
        return {"eps": torch.ones_like(sigma), "v": 1 + sigma**2, "x0": sigma**2}[self.predicts]

    def _place(self, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps and levels of sigma, each (1,) or (B,), on the CPU.

        A sigma on a GPU costs one sync a call here, since it must be checked before the network is called.
        """
        near = max(_NEAR, torch.finfo(torch.result_type(sigma, 1.0)).eps)  # bfloat16 cannot represent a sigma to 1e-3
        sigma = torch.as_tensor(sigma, dtype=torch.float64, device="cpu").detach().reshape(-1)
        step = torch.searchsorted(self._borders, sigma)
        level = self._levels[step]  # the nearest
        if not ((sigma / level - 1).abs() <= near).all():  # not so for nan
            self._check(sigma, level, near)
        if self.between == "refuse":
            return step, level
        above = torch.searchsorted(self._levels, sigma).clamp(1, len(self._levels) - 1)
        low, high = self._logs[above - 1], self._logs[above]
        return (above - 1 + ((sigma.log() - low) / (high - low)).clamp(0, 1)).float(), sigma

    def _check(self, sigma: Tensor, level: Tensor, near: float) -> None:
        """Refuse a sigma (n,) outside the levels (n,) and, unless it may be interpolated, one between them."""
        low, high = self._levels[0].item(), self._levels[-1].item()
        outside = ~((sigma >= low * (1 - near)) & (sigma <= high * (1 + near)))
        if outside.any():
            raise Refused(
                f"sigma={sigma[outside][0]:.6g} is outside the levels that this network was trained on, {low:.6g} to "
                f"{high:.6g}: choose sigmas within them"
            )
        if self.between == "refuse":
            far = (sigma / level - 1).abs().argmax()
            raise Refused(
                f"sigma={sigma[far]:.6g} is none of the {len(self._levels)} levels that this network was trained on, "
                f"{low:.6g} to {high:.6g} (nearest: {level[far]:.6g}): visit its own, denoiser.grid(n), or ask for "
                "between='interpolate'"
            )
