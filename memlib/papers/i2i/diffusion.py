"""A conditional diffusion inpainter in the manner of Palette (Saharia et al. 2022), on diffusers' U-Net.

The network sees a noisy image and T(x) and predicts the noise; completion runs it down from pure noise. Its encoder
is the descending half of the U-Net, with an output at every resolution and one at the bottom; its decoder ascends.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from memlib import adapters, sample
from memlib.errors import Refused, needs
from memlib.noise import Noise, expand_sigma, noise_from
from memlib.papers.i2i.masks import hide, paste

if TYPE_CHECKING:
    from diffusers import UNet2DModel


LARGEST = 3.0  # standard deviations: no pixel of a standardised image lies much farther out


class Noisy(NamedTuple):
    """What the encoder is given: T(x) (B, C, H, W), the mask, the noisy image (B, C, H, W) and its level t (B,)."""

    known: Tensor
    mask: Tensor
    noisy: Tensor
    t: Tensor


class Inpainter(nn.Module):
    """A U-Net that predicts the noise of x_t = sqrt(eta_t) x + sqrt(1 - eta_t) gamma, given T(x). I2I eq. C.24.

    `encoder` descends, `decoder` ascends. Both read the embedding of t; it belongs to the decoder, or a frozen decoder
    would change with the encoder. `Inpainter.small` makes one to train, `Inpainter.load` reads a folder.

    Arguments:
        net: takes x_t and T(x) stacked, (B, 2 C, H, W), or with the mask behind them, (B, 2 C + 1, H, W).
        alphas_cumprod: eta_t, (T,).

    Raises:
        Refused: for a network of other channels, of images that are not square, or of other parts.
    """

    def __init__(self, net: "UNet2DModel", alphas_cumprod: Tensor) -> None:
        super().__init__()
        config = cast(Any, net.config)  # a FrozenDict, whose entries are attributes too
        inner, channels, size = config.in_channels, config.out_channels, config.sample_size
        if inner not in (2 * channels, 2 * channels + 1) or net.class_embedding is not None:
            raise Refused(
                f"an inpainter takes the noisy image and the known one, {2 * channels} channels or with the mask "
                f"{2 * channels + 1}, and no label; this U-Net takes {inner}: give another"
            )
        if not isinstance(size, int):
            raise Refused(f"an inpainter's sample_size is one number, as its images are square, not {size}")
        blocks = (*config.down_block_types, *config.up_block_types)
        if any("Skip" in block for block in blocks) or net.mid_block is None or config.center_input_sample:
            raise Refused("a U-Net with Skip blocks, without a mid block or with center_input_sample: give a plain one")
        self.shape, self.tells_mask = (channels, size, size), inner == 2 * channels + 1
        self.alphas_cumprod = alphas_cumprod.detach().double().cpu()
        self.waves = net.time_proj
        self.encoder, self.decoder = _Descent(net), _Ascent(net)

    @classmethod
    def small(
        cls, shape: tuple[int, int, int], widths: tuple[int, ...] = (32, 64), layers: int = 1, steps: int = 1000
    ) -> Self:
        """An untrained one for images of `shape` (C, H, H): `widths` channels, halving the image, `steps` DDPM levels.

        Raises Refused where it cannot be halved so often.
        """
        return cls(small_unet(shape, 2 * shape[0] + 1, widths, layers), linear_schedule(steps))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """From a diffusers folder with a U-Net and its scheduler, as `adapters.from_diffusers` reads it.

        Raises Refused as that does, and for a network that does not predict the noise.
        """
        found = adapters.from_diffusers(folder)
        if found.predicts != "eps":
            raise Refused(f"an inpainter predicts the noise (epsilon), and that of {str(folder)!r} {found.predicts}")
        return cls(cast("UNet2DModel", found.net), found.alphas_cumprod).eval()

    def inputs(self, images: Tensor, mask: Tensor, generator: torch.Generator) -> Noisy:
        """What the encoder is given in training on images (B, C, H, W), level and noise drawn from `generator`.

        The noisy image is made of the whole image, hidden pixels too; at low levels they are plain to see.
        """
        return self._noised(images, images, mask, generator)[0]

    def initial_inputs(self, images: Tensor, mask: Tensor, generator: torch.Generator) -> Noisy:
        """What it is given when completion of images (B, C, H, W) begins: T(x) and pure noise at the highest level.

        No hidden pixel is used. With fewer steps than there are levels, `complete` begins somewhat below the highest.
        """
        t = torch.full((len(images),), len(self.alphas_cumprod) - 1, device=images.device)
        return Noisy(hide(images, mask), mask, noise_from(generator)(images), t)

    def with_noise(self, inputs: Noisy, noise: Tensor) -> Noisy:
        """The same with noise (B, C, H, W) in place of the noisy image; T(x) and the level stay. I2I eq. C.25."""
        return inputs._replace(noisy=noise)

    def with_hidden_noise(self, inputs: Noisy, noise: Tensor) -> Noisy:
        """The same with noise (B, C, H, W) in the hidden part of the noisy image alone, as the authors' code has it."""
        return inputs._replace(noisy=torch.where(inputs.mask, noise, inputs.noisy))

    def encode(self, inputs: Noisy) -> tuple[Tensor, ...]:
        """Codes (B, D_i, H_i, W_i): the bottom of the U-Net last, before it every skip connection to the decoder."""
        x = [inputs.noisy, inputs.known]
        if self.tells_mask:
            x.append(inputs.mask.expand(len(inputs.noisy), 1, *inputs.noisy.shape[-2:]).to(inputs.noisy))
        return self.encoder(torch.cat(x, 1), self._time(inputs.t, inputs.noisy))

    def decode(self, codes: tuple[Tensor, ...], t: Tensor) -> Tensor:
        """The predicted noise (B, C, H, W) from codes and levels t (B,)."""
        return self.decoder(codes, self._time(t, codes[0]))

    def predict(self, inputs: Noisy) -> Tensor:
        """The predicted noise (B, C, H, W) in the noisy image."""
        return self.decode(self.encode(inputs), inputs.t)

    def loss(self, seen: Tensor, truth: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """|D(E(T(seen), truth noised, t)) - its noise|_2, (B,), unsquared as in I2I eq. C.26; images (B, C, H, W).

        In training truth = seen. Retain Label gives retain images as the truth (C.29).
        """
        inputs, gamma = self._noised(seen, truth, mask, generator)
        return torch.linalg.vector_norm((self.predict(inputs) - gamma).flatten(1), dim=1)

    def loss_to_noise(self, seen: Tensor, noise: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """|D(E(T(seen), n, t)) - n|_2, (B,), for noise n (B, C, H, W): Noisy Label, I2I eq. C.32.

        C.32 has n as the noisy image and an independent gamma as what is to be predicted, of which only the mean could
        be learned. In the authors' code both are the same draw, as here.
        """
        t = torch.randint(len(self.alphas_cumprod), (len(seen),), generator=generator).to(seen.device)
        error = self.predict(Noisy(hide(seen, mask), mask, noise, t)) - noise
        return torch.linalg.vector_norm(error.flatten(1), dim=1)

    @torch.no_grad()
    def complete(self, images: Tensor, mask: Tensor, noise: Noise = torch.randn_like, steps: int = 20) -> Tensor:
        """Images (B, C, H, W) with the hidden pixels filled in, by DDIM in `steps`, and the others untouched.

        At every step the estimate of the image has the known pixels where they are known, and elsewhere stays within 3
        standard deviations. Without that a small network's errors add up, and the colour drifts.
        """
        known = hide(images, mask)

        def net(x_t: Tensor, t: Tensor) -> Tensor:
            return self.predict(Noisy(known, mask, x_t, t))

        denoiser = adapters.from_discrete(net, self.alphas_cumprod, "eps")
        grid = denoiser.grid(min(steps, len(denoiser.sigmas) - 1))
        drawn = sample.ancestral(
            denoiser,
            float(grid[0]) * noise(images),
            grid,
            limit=lambda x: paste(known, x.clamp(-LARGEST, LARGEST), mask),
        )
        return paste(images, drawn, mask)

    def _noised(self, seen: Tensor, truth: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Noisy, Tensor]:
        """T(seen) and noisy `truth`, its levels drawn from `generator`; and the noise gamma in it."""
        t = torch.randint(len(self.alphas_cumprod), (len(seen),), generator=generator)
        eta = expand_sigma(self.alphas_cumprod[t], truth)
        gamma = noise_from(generator)(truth)
        noisy = eta.sqrt() * truth + (1 - eta).sqrt() * gamma
        return Noisy(hide(seen, mask), mask, noisy, t.to(seen.device)), gamma

    def _time(self, t: Tensor, x: Tensor) -> Tensor:
        return self.decoder.clock(self.waves(t).to(x.dtype))


def small_unet(shape: tuple[int, int, int], inner: int, widths: tuple[int, ...], layers: int) -> "UNet2DModel":
    """An untrained U-Net that predicts images of `shape` (C, H, H) from `inner` channels, `widths` channels inside.

    Raises Refused where the image cannot be halved so often.
    """
    with needs("models"):
        from diffusers import UNet2DModel  # heavy: only where a model is wanted

    channels, size, _ = shape
    if size % 2 ** (len(widths) - 1):
        raise Refused(f"images of {size} pixels cannot be halved {len(widths) - 1} times: give fewer widths")
    return UNet2DModel(
        sample_size=size, in_channels=inner, out_channels=channels, block_out_channels=widths,
        layers_per_block=layers, down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths), norm_num_groups=math.gcd(8, *widths),
        attention_head_dim=math.gcd(32, *widths),
    )  # fmt: skip


def linear_schedule(steps: int) -> Tensor:
    """eta_t of DDPM's linear schedule, (T,). Ho et al. 2020, sec. 4."""
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, steps, dtype=torch.float64), 0)


class _Descent(nn.Module):
    """The first half of a UNet2DModel: (B, C', H, W) and the time's embedding to the codes of `Inpainter.encode`."""

    def __init__(self, net: "UNet2DModel") -> None:
        super().__init__()
        self.enter, self.blocks, self.bottom = net.conv_in, net.down_blocks, cast(nn.Module, net.mid_block)

    def forward(self, x: Tensor, time: Tensor) -> tuple[Tensor, ...]:
        x = self.enter(x)
        codes = (x,)
        for block in self.blocks:
            x, skips = block(hidden_states=x, temb=time)
            codes += skips
        return (*codes, self.bottom(x, time))


class _Ascent(nn.Module):
    """The second half: codes and the time's embedding to the prediction (B, C, H, W)."""

    def __init__(self, net: "UNet2DModel") -> None:
        super().__init__()
        self.clock, self.blocks = net.time_embedding, net.up_blocks
        self.leave = nn.Sequential(net.conv_norm_out, net.conv_act, net.conv_out)

    def forward(self, codes: tuple[Tensor, ...], time: Tensor) -> Tensor:
        *skips, x = codes
        for block in self.blocks:
            taken = len(cast(nn.ModuleList, block.resnets))
            x = block(x, tuple(skips[-taken:]), time)
            del skips[-taken:]
        return self.leave(x)
