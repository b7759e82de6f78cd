"""A network in the preconditioning of EDM as a denoiser, at any level: from memory, or from a diffusers folder.

    D(x, sigma) = c_skip x + c_out F(c_in x, ln(sigma) / 4)

with the coefficients of Karras et al. 2022, table 1, which depend on one number, `sigma_data`. That is how
`nets.Preconditioned` trains a network here, and how the EDM schedulers of diffusers read one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memlib.adapters import folders
from memlib.adapters.calling import Labels, predicted
from memlib.errors import Refused, needs, usable
from memlib.noise import expand_sigma, karras
from memlib.shapes import Float, PerSample

_SIGNS = {"epsilon": 1.0, "v_prediction": -1.0}  # of c_out, by diffusers' names


def from_preconditioned(
    net: Callable[..., Tensor], sigma_data: float, *, clock: Callable[[Tensor], Tensor] | None = None
) -> "Edm":
    """The denoiser of a network F that was trained in EDM's preconditioning, (B, *S) -> (B, *S).

    Arguments:
        net: F(x, t), or F(x, t, y) with labels, with x (B, *S) of unit variance and t (B,) = ln(sigma) / 4. It returns
            (B, *S), as a tensor or, as the models of diffusers, in `.sample`. It is called in its own dtype.
        sigma_data: the standard deviation of the data that it was trained with; 0.5 in EDM.
        clock: from ln(sigma) / 4, (B,), to the times that the network was trained with, (B,); None for itself. A
            UNet2DModel in a `nets.UNet` was trained with 250 (t + 2).

    Returns:
        An `Edm`, a module that can be trained, moved and copied.

    Raises:
        Refused: unless `sigma_data` is finite and positive.
    """
    return Edm(net, sigma_data, clock=clock)


def from_edm(
    place: str | Path,
    sigma_data: float | None = None,
    *,
    clock: Callable[[Tensor], Tensor] | None = None,
    device: str | torch.device = "cpu",
) -> "Edm":
    """The U-Net of a diffusers folder, or of a model on the hub, that was trained in EDM's preconditioning.

    Arguments:
        place: a folder as `from_diffusers` takes it, whose scheduler, if it has one, is one of EDM
            (EDMEulerScheduler, EDMDPMSolverMultistepScheduler). Its weights are safetensors.
        sigma_data: the standard deviation of the data that it was trained with; None for what its scheduler says.
        clock: see `from_preconditioned`.
        device: of the denoiser.

    Returns:
        A denoiser in evaluation mode and float32 with trainable weights: (B, C, H, W) -> (B, C, H, W).

    Raises:
        Refused: as `from_diffusers` does; for a scheduler of another kind; without a `sigma_data`.
    """
    with needs("models"):
        from diffusers import UNet2DModel

    with usable(device):
        torch.empty(0, device=device)  # before anything is read
    root, subfolder = folders.located(place, "unet")
    config = folders.of_unet(place, root / subfolder)
    if (kind := config.get("time_embedding_type", "positional")) != "positional":
        raise Refused(f"the network of {str(place)!r} has a {kind} time embedding, which takes no ln(sigma) / 4")
    scheduler = folders.scheduler(place, root)
    if scheduler is not None and not _of_edm(scheduler):
        raise Refused(
            f"the scheduler of {str(place)!r} is a {type(scheduler).__name__}, which is not EDM's: read the network by "
            "from_diffusers"
        )
    if sigma_data is None and scheduler is None:
        raise Refused(f"{str(place)!r} does not say its sigma_data: give the standard deviation of its training data")
    net = folders.network(UNet2DModel, place, root, subfolder)
    told = {} if scheduler is None else dict(scheduler.config)
    if sigma_data is None and not isinstance(sigma_data := told.get("sigma_data"), int | float):
        raise Refused(f"the scheduler of {str(place)!r} gives sigma_data={sigma_data!r}: write a number there")
    denoiser = Edm(net, sigma_data, clock=clock)
    denoiser.sign = _SIGNS[told.get("prediction_type", "epsilon")]
    denoiser.shape, denoiser.scheduler = folders.shape(config), scheduler
    return denoiser.to(device).eval()


def is_edm(place: str | Path) -> bool:
    """Whether the scheduler of a diffusers folder, or of a model on the hub, is one of EDM.

    Raises:
        Refused: for a place that is not there, and for a scheduler that diffusers cannot read.
    """
    with needs("models"):
        return _of_edm(folders.scheduler(place, folders.configurations(place)))


def _of_edm(scheduler: Any) -> bool:
    return hasattr(scheduler, "precondition_outputs") and scheduler.config.get("prediction_type") in _SIGNS


class Edm(nn.Module):
    """The denoiser that `from_preconditioned` and `from_edm` return, D(x, sigma): x at any level of 0 or more.

    `sigma_data` is a float. If the network comes from a diffusers folder, `shape` is the (C, H, W) of a sample and
    `scheduler` that of the folder; else, or without one, they are None. `sign` is that of c_out: -1 under diffusers'
    `v_prediction`.
    """

    def __init__(
        self, net: Callable[..., Tensor], sigma_data: float, *, clock: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        if not 0 < sigma_data < float("inf"):
            raise Refused(f"sigma_data is {sigma_data}: give a finite number above 0")
        self.net, self.sigma_data, self.clock, self.sign = net, float(sigma_data), clock, 1.0
        self.training = net.training if isinstance(net, nn.Module) else True
        self.shape: tuple[int, int, int] | None = None
        self.scheduler: Any = None
        self._labels = Labels()

    def forward(
        self, x: Float[Tensor, " b *s"], sigma: PerSample, y: int | Tensor | None = None
    ) -> Float[Tensor, " b *s"]:
        """x (B, *S) at level sigma, a float, () or (B,), and labels y, one, (B,) or None -> (B, *S), like x."""
        level = expand_sigma(sigma, x)
        total = level**2 + self.sigma_data**2
        code = (level.clamp_min(torch.finfo(x.dtype).tiny).log() / 4).flatten().expand(len(x))  # at sigma = 0, D = x
        seen = x * total.rsqrt()
        found = predicted(
            self.net, seen, code if self.clock is None else self.clock(code), self._labels(self.net, y, seen)
        )
        return self.sigma_data**2 / total * x + self.sign * level * self.sigma_data * total.rsqrt() * found.to(x.dtype)

    def grid(self, n: int) -> Float[Tensor, " m"]:
        """The levels of n steps, (n + 1,), decreasing to 0, as the folder's scheduler says, else `noise.karras(n)`.

        They are n where the scheduler ends at its lowest level.

        Raises:
            Refused: for fewer than 2 steps.
        """
        if n < 2:
            raise Refused(f"a grid of EDM has 2 steps or more, not {n}")
        if self.scheduler is None:
            return karras(n)
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(n)
        sigmas = scheduler.sigmas.double()
        return sigmas if sigmas[-1] < sigmas[-2] else sigmas[:-1]

    def weight(self, sigma: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """(B,) weights for `losses.denoising` that weight the error of F equally at every sigma, (B,)."""
        return (sigma**2 + self.sigma_data**2) / self.sigma_data**2
