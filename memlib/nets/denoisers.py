"""Networks that denoise. Wrapped in `Preconditioned`, each is a denoiser D(x, sigma).

A bare network F(x, t) takes a scaled sample (B, *S) and a time code t (B,) = ln(sigma) / 4 and returns (B, *S). One
that was made with `classes` takes labels y (B,) too: F(x, t, y), and `partial(D, y=y)` is a denoiser D(x, sigma).
"""

import math

import torch
from torch import Tensor, nn

from memlib.errors import Refused, needs
from memlib.nets.blocks import FiLMBlock, LabelCode, TimeCode, labels_or_none, once, positive
from memlib.noise import expand_sigma
from memlib.shapes import Float, Int, PerSample, Shaped


class Preconditioned(nn.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, ln(sigma) / 4), a denoiser. Karras et al. 2022, eq. 7 and table 1.

    The inputs and the targets of F have unit variance at every sigma. `sigma_data` is the standard deviation of the
    data's coordinates about 0: centre the data, or F must learn their mean as well. It is a buffer (), saved and loaded
    with the weights.

    Raises:
        Refused: unless `sigma_data` is finite and positive.
    """

    sigma_data: Tensor

    def __init__(self, net: nn.Module, sigma_data: float | Shaped[Tensor, ""] = 0.5) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("sigma_data", positive(sigma_data, "sigma_data"))

    def forward(
        self, x: Float[Tensor, " b *s"], sigma: PerSample, y: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b *s"]:
        """x (B, *S) at level sigma, a float, () or (B,), and labels y (B,) or None -> posterior mean (B, *S)."""
        sigma = expand_sigma(sigma, x)
        total = sigma**2 + self.sigma_data**2
        code = sigma.clamp_min(torch.finfo(x.dtype).tiny).log() / 4  # finite at sigma = 0, where D = x
        condition = () if y is None else (y,)
        output = self.net(x * total.rsqrt(), code.flatten().expand(len(x)), *condition)
        return total.reciprocal() * self.sigma_data**2 * x + sigma * self.sigma_data * total.rsqrt() * output

    def weight(self, sigma: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """(B,) weights for `losses.denoising` that weight the error of F equally at every sigma.

        Karras et al. 2022, table 1, times sigma^2, which turns an error of x0 into an error of eps.
        """
        spread = self.sigma_data.to(sigma) ** 2
        return (sigma**2 + spread) / spread


class MLP(nn.Module):
    """A plain perceptron on [x, t] for toys: `depth` hidden layers of `width`, SiLU, samples of shape (dim,)."""

    def __init__(self, dim: int, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        sizes = [dim + 1, *[width] * depth]
        layers = [m for a, b in zip(sizes, sizes[1:], strict=False) for m in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(width, dim))

    def forward(self, x: Float[Tensor, " b dim"], t: Float[Tensor, " b"]) -> Float[Tensor, " b dim"]:
        """x (B, dim), t (B,) -> (B, dim)."""
        return self.layers(torch.cat([x, 4 * t[:, None]], 1))


class ResidualMLP(nn.Module):
    """A residual MLP whose blocks are scaled and shifted by the time code (FiLM): small, and quick to memorize.

    It suits samples of any shape S with some 10 to 100 coordinates, such as 8x8 digits or PCA latents. On raw pixels of
    larger images it memorizes nothing: use a U-Net there. FiLM: Perez et al. 2018.

    With `classes` = K it is class-conditional: a code of the label is added to that of the time and to the input. The
    label K means none, and is what y = None stands for. Train it with some labels dropped (`dropped`), and it can be
    asked for both, as classifier-free guidance does. Ho & Salimans 2022, alg. 1.
    """

    def __init__(self, shape: tuple[int, ...], width: int = 256, blocks: int = 2, classes: int = 0) -> None:
        super().__init__()
        size = math.prod(shape)
        self.classes, self.code = classes, nn.Sequential(TimeCode(64), nn.Linear(64, width), nn.SiLU())
        self.label = LabelCode(classes, 2 * width) if classes else None
        self.enter = nn.Linear(size, width)
        self.blocks = nn.ModuleList(FiLMBlock(width) for _ in range(blocks))
        last = nn.Linear(width, size)
        nn.init.zeros_(last.weight)  # start at F = 0, where D is the linear denoiser c_skip x
        self.leave = nn.Sequential(nn.LayerNorm(width), last)

    def forward(
        self, x: Float[Tensor, " b *s"], t: Float[Tensor, " b"], y: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b *s"]:
        """x (B, *S), t (B,), labels y (B,) or None -> (B, *S)."""
        h, code = self.enter(x.flatten(1)), self.code(once(t))
        if self.label is not None:
            beside_code, beside_input = self.label(labels_or_none(y, self.classes, x)).chunk(2, 1)
            h, code = h + beside_input, code + beside_code
        elif y is not None:
            raise Refused("this network knows no labels: make it with classes=K to give it some")
        for block in self.blocks:
            h = block(h, code)
        return self.leave(h).reshape(x.shape)


class UNet(nn.Module):
    """diffusers' UNet2DModel as F(x, t), for images (channels, size, size).

    Arguments:
        size: pixels a side.
        channels: of the images.
        widths: channels at each resolution; the image is halved between them.
        layers: residual blocks of each width.
        attention: self-attention is used where the image has this width in pixels or less.
        dropout: its probability.
        classes: K labels 0 to K - 1 for a class-conditional network; the label K means none, as in `ResidualMLP`.

    Raises:
        Refused: if `size` cannot be halved len(widths) - 1 times, or diffusers is not installed.
    """

    def __init__(
        self,
        size: int,
        channels: int = 3,
        widths: tuple[int, ...] = (64, 128, 128),
        layers: int = 2,
        attention: int = 16,
        dropout: float = 0.0,
        classes: int = 0,
    ) -> None:
        super().__init__()
        with needs("models"):
            from diffusers import UNet2DModel  # slow to import: only where a U-Net is wanted

        if size % 2 ** (len(widths) - 1):
            raise Refused(f"images of {size} pixels cannot be halved {len(widths) - 1} times: give fewer widths")
        here = [size // 2**i <= attention for i in range(len(widths))]
        self.unet = UNet2DModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=layers,
            block_out_channels=widths,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in here),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(here)),
            norm_num_groups=math.gcd(32, *widths),
            attention_head_dim=math.gcd(32, *widths),
            dropout=dropout,
            num_class_embeds=classes + 1 if classes else None,
        )
        self.classes = classes

    def forward(
        self, x: Float[Tensor, " b c h w"], t: Float[Tensor, " b"], y: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b c h w"]:
        """x (B, channels, size, size), t (B,), labels y (B,) or None -> the shape of x."""
        if self.classes:
            y = labels_or_none(y, self.classes, x)
        elif y is not None:
            raise Refused("this network knows no labels: make it with classes=K to give it some")
        # Its sinusoids expect steps 0 to 1000, and ln(sigma) / 4 lies in [-1.6, 1.1] for sigma in [0.002, 80].
        return self.unet(x, 250 * (t + 2), class_labels=y).sample
