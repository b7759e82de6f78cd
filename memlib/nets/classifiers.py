"""Networks that predict the label of a noisy sample. Wrapped in `Classifier`, each takes a sample and its level.

A bare network F(x, t) takes a scaled sample (B, *S) and a time code t (B,) = ln(sigma) / 4 and returns logits (B, K).
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from memlib.errors import Refused
from memlib.nets.blocks import FiLMBlock, TimeCode, once, positive
from memlib.noise import expand_sigma
from memlib.shapes import Float, PerSample, Shaped


class Classifier(nn.Module):
    """Logits (B, K) of a noisy sample, (x, sigma) -> F(x / sqrt(sigma^2 + sigma_data^2), ln(sigma) / 4).

    The input is scaled as in `Preconditioned`, and `sigma_data` is a buffer () as there. A network made with time=False
    ignores sigma: its input is always scaled as at sigma = 0.
    """

    sigma_data: Tensor

    def __init__(self, net: nn.Module, sigma_data: float | Shaped[Tensor, ""] = 0.5) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("sigma_data", positive(sigma_data, "sigma_data"))

    @property
    def time(self) -> bool:
        """Whether the network depends on sigma."""
        return bool(self.net.time)

    def forward(self, x: Float[Tensor, " b *s"], sigma: PerSample) -> Float[Tensor, " b k"]:
        """x (B, *S) at level sigma, a float, () or (B,) -> logits (B, K)."""
        sigma = expand_sigma(sigma if self.time else 0.0, x)
        code = (sigma.clamp_min(torch.finfo(x.dtype).tiny).log() / 4).clamp(-2, 2)  # the range of TimeCode
        scaled = x * (sigma**2 + self.sigma_data**2).rsqrt()
        return self.net(scaled, code.flatten().expand(len(x)))


class TimeModule(nn.Module):
    """(1 + a) h + b, with a and b for each channel linear in features of the time: the identity before training.

    SIDE's appendix C puts it "directly after the first batch normalization" of a block, on the normalised features. A
    scale and a shift are the simplest way to give these features a mean and variance that depend on the noise level.
    """

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.film = nn.Linear(features, 2 * channels)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, h: Float[Tensor, " b c h w"], code: Float[Tensor, " b f"]) -> Float[Tensor, " b c h w"]:
        """h (B, C, H, W), code (B, features) -> (B, C, H, W)."""
        scale, shift = self.film(code)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(h + shift, h, scale)


class ResNet(nn.Module):
    """A residual network with one time module in each block, images (B, channels, H, W) -> logits (B, K).

    He et al. 2016, sec. 3.3, modified as in SIDE sec. 3.3.2 and appendix C.

    Arguments:
        classes: K.
        channels: of the images.
        widths: channels at each resolution. Where the width changes, the image is halved.
        blocks: basic blocks of each width.
        stem: "7x7" is that of He et al., with ReLU and one average at the end; its blocks see a quarter of the image's
            size. "3x3" keeps the size, for images of 8 to 32 pixels, and has SiLU and 2x2 averages. Guidance uses
            the gradient in x: in exploratory runs on 8-pixel digits, the attack failed with ReLU and one average.
        time: False leaves the time modules out. They start as the identity, so the state of a network without them
            loads into one with them (strict=False).

    Raises:
        Refused: unless `blocks` has one count for each width.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 1,
        widths: tuple[int, ...] = (16, 32, 64),
        blocks: tuple[int, ...] = (1, 1, 1),
        stem: Literal["3x3", "7x7"] = "3x3",
        time: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks):
            raise Refused(f"{len(widths)} widths and {len(blocks)} counts of blocks: give one count a width")
        self.time = time
        self.code = nn.Sequential(TimeCode(64), nn.Linear(64, 128), nn.SiLU()) if time else None
        size, stride = (7, 2) if stem == "7x7" else (3, 1)
        activation, self.averages = (nn.ReLU(), 1) if stem == "7x7" else (nn.SiLU(), 2)
        first = nn.Conv2d(channels, widths[0], size, stride, size // 2, bias=False)
        pool = nn.MaxPool2d(3, 2, 1) if stem == "7x7" else nn.Identity()
        self.enter = nn.Sequential(first, nn.BatchNorm2d(widths[0]), activation, pool)
        each = [width for width, count in zip(widths, blocks, strict=True) for _ in range(count)]
        pairs = zip([widths[0], *each], each, strict=False)
        self.blocks = nn.ModuleList(_BasicBlock(before, after, time, activation) for before, after in pairs)
        self.leave = nn.Linear(each[-1] * self.averages**2, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, " b c h w"], t: Float[Tensor, " b"]) -> Float[Tensor, " b k"]:
        """x (B, channels, H, W), t (B,) -> (B, K)."""
        h, code = self.enter(x), None if self.code is None else self.code(t)
        for block in self.blocks:
            h = block(h, code)
        return self.leave(nn.functional.adaptive_avg_pool2d(h, self.averages).flatten(1))


def resnet34(classes: int, channels: int = 3, time: bool = True) -> ResNet:
    """The network of SIDE sec. 4.1, images (B, channels, H, W) of 64 pixels or more -> logits (B, K).

    21.3 million parameters before the last layer (He et al. 2016, table 1), and a million more for time.
    """
    return ResNet(classes, channels, (64, 128, 256, 512), (3, 4, 6, 3), "7x7", time)


class _BasicBlock(nn.Module):
    """act(shortcut(h) + BN conv act time BN conv h), halving the image where the width changes. He et al., fig. 5."""

    def __init__(self, before: int, after: int, time: bool, activation: nn.Module) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.time = TimeModule(128, after) if time else None
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.activation = activation
        self.shortcut = nn.Identity()
        if before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, h: Tensor, code: Tensor | None) -> Tensor:
        inner = self.norm1(self.conv1(h))
        inner = inner if self.time is None else self.time(inner, code)
        return self.activation(self.shortcut(h) + self.norm2(self.conv2(self.activation(inner))))


class LabelMLP(nn.Module):
    """`ResidualMLP` with logits for its output, samples (B, *S) -> (B, K): the classifier for vectors and latents.

    The time module follows the layer norm of each block, since there is no batch norm. time=False leaves it out.
    """

    def __init__(
        self, classes: int, shape: tuple[int, ...], width: int = 128, blocks: int = 2, time: bool = True
    ) -> None:
        super().__init__()
        self.time = time
        self.code = nn.Sequential(TimeCode(64), nn.Linear(64, width), nn.SiLU()) if time else None
        self.enter = nn.Linear(math.prod(shape), width)
        self.blocks = nn.ModuleList(FiLMBlock(width, time) for _ in range(blocks))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x: Float[Tensor, " b *s"], t: Float[Tensor, " b"]) -> Float[Tensor, " b k"]:
        """x (B, *S), t (B,) -> (B, K)."""
        h, code = self.enter(x.flatten(1)), None if self.code is None else self.code(once(t))
        for block in self.blocks:
            h = block(h, code)
        return self.leave(h)
