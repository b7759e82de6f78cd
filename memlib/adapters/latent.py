"""An autoencoder of images beside a network of its latents: what latent diffusion (Rombach et al. 2022) needs."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memlib.adapters import folders
from memlib.errors import Refused, needs, usable
from memlib.shapes import Float

_KINDS = ("AutoencoderKL", "VQModel")


def from_vae(place: str | Path, *, device: str | torch.device = "cpu") -> "Autoencoder":
    """The autoencoder of a diffusers folder, or of a model on the hub, frozen.

    Arguments:
        place: a folder with an AutoencoderKL or a VQModel as safetensors, or a pipeline with one in `vae` or `vqvae`,
            or a name on the hub.
        device: of the autoencoder.

    Returns:
        An `Autoencoder` in evaluation mode and float32.

    Raises:
        Refused: if a file is missing or damaged, a weight does not fit or is not finite, the model is of another kind,
            the device cannot be used, or diffusers is not installed.
    """
    with needs("models"):
        import diffusers

    with usable(device):
        torch.empty(0, device=device)
    root, subfolder = folders.located(place, "vae", "vqvae")
    config = folders.as_json(root / subfolder / "config.json")
    if (kind := config.get("_class_name")) not in _KINDS:
        raise Refused(f"the autoencoder of {str(place)!r} is a {kind}: give one of {', '.join(_KINDS)}")
    net = folders.network(getattr(diffusers, kind), place, root, subfolder)
    return Autoencoder(net).to(device)


class Autoencoder(nn.Module):
    """Images (B, C, H, W) in [-1, 1] to the latents (B, c, h, w) that a network was trained on, and back.

    The latents are the mode of the posterior (of a VQModel, the code before it is quantized), less `shift`, times
    `scale`, as the config.json of the autoencoder says: `scaling_factor`, `shift_factor`, `latents_mean` and
    `latents_std`. `factor` is how many pixels a latent is wide, `channels` the C of images and `latent_channels` the
    c of latents.
    """

    net: Any  # no common class of diffusers declares `encode`
    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        config: Any = net.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        normed = mean is not None and std is not None
        shift = mean if normed else [config.get("shift_factor") or 0.0]
        factor = config.get("scaling_factor") or 1.0
        self.net = net.requires_grad_(False)
        self.register_buffer("scale", factor / torch.tensor(std if normed else [1.0]).view(-1, 1, 1))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.get_default_dtype()).view(-1, 1, 1))
        self.channels, self.latent_channels = int(config["in_channels"]), int(config["latent_channels"])
        self.factor = 2 ** (len(config["block_out_channels"]) - 1)
        self.eval()

    def encode(self, images: Float[Tensor, " b c h w"]) -> Float[Tensor, " b l i j"]:
        """Images (B, C, H, W) in [-1, 1] -> latents (B, c, H / factor, W / factor), in the dtype of the images.

        Raises:
            Refused: for images of other channels, or whose width or height is no multiple of `factor`.
        """
        if images.shape[1] != self.channels or any(side % self.factor for side in images.shape[2:]):
            raise Refused(
                f"images of shape {tuple(images.shape[1:])} cannot be encoded: this autoencoder takes {self.channels} "
                f"channels and sides that {self.factor} divides"
            )
        found = self.net.encode(images.to(self.scale.dtype))
        latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        return ((latents - self.shift) * self.scale).to(images.dtype)

    def decode(self, latents: Float[Tensor, " b l i j"]) -> Float[Tensor, " b c h w"]:
        """Latents (B, c, h, w) -> images (B, C, factor h, factor w), in [-1, 1] or nearly so, in their dtype."""
        return self.net.decode(latents.to(self.scale.dtype) / self.scale + self.shift).sample.to(latents.dtype)
