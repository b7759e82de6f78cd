"""An inpainter whose code is of the masked image alone: the positive control for unlearning in the diffusion family.

In Palette the noisy image enters at the encoder, so the code holds the noise of the moment, and a target for it cannot
be predicted from T(x). Here the encoder reads T(x) and the mask; the noisy image enters at the decoder, a U-Net of its
own to whose skip connections the codes are added (as ControlNet adds those of its condition: Zhang et al. 2023).
"""

from typing import TYPE_CHECKING, Self, cast

import torch
from torch import Tensor, nn

from memlib.papers.i2i.diffusion import Inpainter, Noisy, _Ascent, _Descent, linear_schedule, small_unet
from memlib.papers.i2i.masks import hide

if TYPE_CHECKING:
    from diffusers import UNet2DModel


class MaskedCodeInpainter(Inpainter):
    """An `Inpainter` that encodes T(x) alone; I2I eq. 10 then applies to it as to an MAE.

    Arguments:
        reader: takes T(x) and the mask, (B, C + 1, H, W); its descending half is the encoder.
        painter: takes the noisy image, (B, C, H, W), and predicts its noise; it is the decoder.
        alphas_cumprod: eta_t, (T,).
    """

    def __init__(self, reader: "UNet2DModel", painter: "UNet2DModel", alphas_cumprod: Tensor) -> None:
        nn.Module.__init__(self)  # not Inpainter's, which makes both halves of one network
        channels, size = painter.config["in_channels"], painter.config["sample_size"]
        self.shape, self.tells_mask = (channels, size, size), True
        self.alphas_cumprod = alphas_cumprod.detach().double().cpu()
        self.waves = painter.time_proj
        self.encoder, self.decoder = _Descent(reader), cast(_Ascent, _Guided(painter))

    @classmethod
    def small(
        cls, shape: tuple[int, int, int], widths: tuple[int, ...] = (16, 32), layers: int = 1, steps: int = 1000
    ) -> Self:
        """An untrained one for images of `shape` (C, H, H): `widths` channels, halving the image, `steps` DDPM levels.

        Raises Refused where it cannot be halved so often.
        """
        channels = shape[0]
        reader, painter = (small_unet(shape, inner, widths, layers) for inner in (channels + 1, channels))
        return cls(reader, painter, linear_schedule(steps))

    def with_noise(self, inputs: Noisy, noise: Tensor) -> Noisy:
        """The same with T(noise) in place of T(x), noise (B, C, H, W); the code depends on nothing else."""
        return inputs._replace(known=hide(noise, inputs.mask))

    def with_hidden_noise(self, inputs: Noisy, noise: Tensor) -> Noisy:
        """`with_noise`, noise (B, C, H, W)."""
        return self.with_noise(inputs, noise)

    def encode(self, inputs: Noisy) -> tuple[Tensor, ...]:
        """Codes (B, D_i, H_i, W_i) of T(x) and the mask alone, at level 0 whatever the level of the noisy image is."""
        mask = inputs.mask.expand(len(inputs.known), 1, *inputs.known.shape[-2:]).to(inputs.known)
        return self.encoder(torch.cat([inputs.known, mask], 1), self._time(torch.zeros_like(inputs.t), inputs.known))

    def predict(self, inputs: Noisy) -> Tensor:
        """The predicted noise (B, C, H, W) in the noisy image."""
        guided = cast(_Guided, self.decoder)
        return guided.paint(inputs.noisy, self.encode(inputs), self._time(inputs.t, inputs.noisy))


class _Guided(nn.Module):
    """A whole U-Net with codes added to its skip connections and at its bottom."""

    def __init__(self, net: "UNet2DModel") -> None:
        super().__init__()
        self.descent, self.ascent = _Descent(net), _Ascent(net)

    @property
    def clock(self) -> nn.Module:
        return self.ascent.clock

    def paint(self, noisy: Tensor, codes: tuple[Tensor, ...], time: Tensor) -> Tensor:
        own = self.descent(noisy, time)
        return self.ascent(tuple(a + b for a, b in zip(own, codes, strict=True)), time)
