"""Networks that the chapters train: denoisers once wrapped in `Preconditioned`, classifiers once in `Classifier`.

A bare network F(x, t) takes a scaled sample (B, *S) and a time code t (B,) = ln(sigma) / 4 and returns (B, *S), or
logits (B, K).
"""

import copy
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from memlib.noise import like


class Preconditioned(nn.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, ln(sigma) / 4), a denoiser. Karras et al. 2022, eq. 7 and table 1.

    F sees inputs and is asked for targets of unit variance at every sigma. `sigma_data` is the standard deviation of
    the data's coordinates about 0: centre the data, or F must learn their mean as well.
    """

    def __init__(self, net: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.net, self.sigma_data = net, sigma_data

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """x (B, *S) at level sigma, a float, () or (B,) -> posterior mean (B, *S)."""
        sigma = like(sigma, x)
        total = sigma**2 + self.sigma_data**2
        code = sigma.clamp_min(torch.finfo(x.dtype).tiny).log() / 4    # finite at sigma = 0, where D = x
        output = self.net(x * total.rsqrt(), code.flatten().expand(len(x)))
        return self.sigma_data**2 / total * x + sigma * self.sigma_data * total.rsqrt() * output

    def weight(self, sigma: Tensor) -> Tensor:
        """(B,) weights for `losses.denoising` under which F's own error counts equally at every sigma. Table 1 there,
        carried from errors of x0 to errors of eps by the factor sigma^2."""
        return (sigma**2 + self.sigma_data**2) / self.sigma_data**2


class Stack(nn.Module):
    """Networks of one architecture side by side: many small ones cost little more than one, as batched products.

    forward: x (E B, *S), sigma (E B,), the rows of the e-th of E networks in one block -> (E B, *S), so that
    `denoiser.pair` and the losses need not know. Each has its own weights and its own gradient; train with clip=None,
    or the norm that gradients are clipped to would be shared. Raises ValueError for networks that differ in shape.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        shapes = {tuple((name, t.shape) for name, t in net.state_dict().items()) for net in nets}
        if len(shapes) != 1:
            raise ValueError(f"a stack takes networks of one architecture, and these have {len(shapes)}")
        weights, buffers = torch.func.stack_module_state(list(nets))
        self.count, self.names = len(nets), list(weights)
        self.weights = nn.ParameterList(weights.values())    # a name with dots is no name for a parameter
        self.buffers_of = buffers
        self._one = [copy.deepcopy(nets[0]).requires_grad_(False)]    # in a list: its own weights are not the stack's

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x (E B, *S), sigma (E B,) or () -> (E B, *S)."""

        def one(weights: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, sigma: Tensor) -> Tensor:
            return torch.func.functional_call(self._one[0], (weights, buffers), (x, sigma))

        weights = dict(zip(self.names, self.weights, strict=True))
        blocks = x.unflatten(0, (self.count, -1))
        levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x)).unflatten(0, (self.count, -1))
        return torch.func.vmap(one)(weights, self.buffers_of, blocks, levels).flatten(0, 1)

    def unstack(self) -> list[nn.Module]:
        """The E networks, each by itself, with copies of their weights."""
        nets = [copy.deepcopy(self._one[0]) for _ in range(self.count)]
        for i, net in enumerate(nets):
            rows = {name: weight[i].detach() for name, weight in zip(self.names, self.weights, strict=True)}
            net.load_state_dict(rows | {name: buffer[i] for name, buffer in self.buffers_of.items()})
        return nets


class TimeCode(nn.Module):
    """Sines and cosines of t (B,) at `size` / 2 frequencies, (B, size): geometric from 1 to 32 cycles over [-2, 2]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        rates = torch.logspace(0, math.log2(32), size // 2, base=2) * (2 * math.pi / 4)
        self.register_buffer("rates", rates)

    def forward(self, t: Tensor) -> Tensor:
        """(B,) -> (B, size)."""
        angle = t[:, None] * self.rates
        return torch.cat([angle.cos(), angle.sin()], 1)


class MLP(nn.Module):
    """A plain perceptron on [x, t] for toys: `depth` hidden layers of `width`, SiLU, samples of shape (dim,)."""

    def __init__(self, dim: int, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        sizes = [dim + 1, *[width] * depth]
        layers = [m for a, b in zip(sizes, sizes[1:], strict=False) for m in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(width, dim))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x (B, dim), t (B,) -> (B, dim)."""
        return self.layers(torch.cat([x, 4 * t[:, None]], 1))


class ResidualMLP(nn.Module):
    """A residual MLP whose blocks are scaled and shifted by the time code (FiLM): small, and quick to memorize.

    shape: sample shape S, any. Suits vectors of some 10 to 100 coordinates (8x8 digits, PCA latents); in raw pixels of
    larger images an MLP memorizes nothing, and a U-Net is needed. FiLM: Perez et al. 2018.
    """

    def __init__(self, shape: tuple[int, ...], width: int = 256, blocks: int = 2) -> None:
        super().__init__()
        size = math.prod(shape)
        self.code = nn.Sequential(TimeCode(64), nn.Linear(64, width), nn.SiLU())
        self.enter = nn.Linear(size, width)
        self.blocks = nn.ModuleList(_FiLMBlock(width) for _ in range(blocks))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, size))
        nn.init.zeros_(self.leave[1].weight)    # start at F = 0: D is then the linear denoiser c_skip x

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x (B, *S), t (B,) -> (B, *S)."""
        h, code = self.enter(x.flatten(1)), self.code(t)
        for block in self.blocks:
            h = block(h, code)
        return self.leave(h).reshape(x.shape)


class _FiLMBlock(nn.Module):
    """h + W2 silu(W1 ((1 + a) norm(h) + b)), with a, b read off the time code, or 0 without time; (B, width)."""

    def __init__(self, width: int, time: bool = True) -> None:
        super().__init__()
        self.norm, self.film = nn.LayerNorm(width), nn.Linear(width, 2 * width) if time else None
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.second.weight)

    def forward(self, h: Tensor, code: Tensor | None) -> Tensor:
        inner = self.norm(h)
        if self.film is not None:
            scale, shift = self.film(code).chunk(2, 1)
            inner = (1 + scale) * inner + shift
        return h + self.second(nn.functional.silu(self.first(inner)))


class UNet(nn.Module):
    """diffusers' UNet2DModel as F(x, t), for images (channels, size, size).

    `widths` are the channels of each resolution, halving the image between them; self-attention where the image is
    `attention` pixels wide or less. Any other option of UNet2DModel keeps its default. Raises ValueError when `size`
    cannot be halved len(widths) - 1 times.
    """

    def __init__(
        self,
        size: int,
        channels: int = 3,
        widths: tuple[int, ...] = (64, 128, 128),
        layers: int = 2,
        attention: int = 16,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        from diffusers import UNet2DModel  # heavy: only where a U-Net is wanted

        if size % 2 ** (len(widths) - 1):
            raise ValueError(f"images of {size} pixels cannot be halved {len(widths) - 1} times; give fewer widths")
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
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x (B, channels, size, size), t (B,) -> the same shape."""
        # Its sinusoids are made for steps 0 to 1000: ln(sigma) / 4 lies in [-1.6, 1.1] for sigma in [0.002, 80].
        return self.unet(x, 250 * (t + 2)).sample


# Classifiers of noisy samples.


class Classifier(nn.Module):
    """Logits (B, K) of a noisy sample, (x, sigma) -> F(x / sqrt(sigma^2 + sigma_data^2), ln(sigma) / 4).

    The input is scaled as in `Preconditioned`. A network made with time=False is the time-independent form: it is
    scaled as at sigma = 0 always and so does not depend on sigma at all.
    """

    def __init__(self, net: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.net, self.sigma_data = net, sigma_data

    @property
    def time(self) -> bool:
        """Whether the network depends on sigma."""
        return self.net.time

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """x (B, *S) at level sigma, a float, () or (B,) -> logits (B, K)."""
        sigma = like(sigma if self.time else 0.0, x)
        code = (sigma.clamp_min(torch.finfo(x.dtype).tiny).log() / 4).clamp(-2, 2)    # the range of TimeCode
        scaled = x * (sigma**2 + self.sigma_data**2).rsqrt()
        return self.net(scaled, code.flatten().expand(len(x)))


class TimeModule(nn.Module):
    """(1 + a) h + b with a and b, one of each a channel, linear in features of the time: the identity before training.

    SIDE's appendix C fixes its place, "directly after the first batch normalization" of a block, and its argument, the
    normalised features; scale and shift are the least that gives them back a mean and variance for each noise level.
    """

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.film = nn.Linear(features, 2 * channels)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, h: Tensor, code: Tensor) -> Tensor:
        """h (B, C, H, W), code (B, features) -> (B, C, H, W)."""
        scale, shift = self.film(code)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(h + shift, h, scale)


class ResNet(nn.Module):
    """A residual network with one time module in each block, images (B, channels, H, W) -> logits (B, K).

    He et al. 2016, sec. 3.3, modified as in SIDE sec. 3.3.2 and appendix C. `blocks` basic blocks at each of `widths`;
    where the width changes, the image is halved. `stem` "7x7" is that of He et al., which leaves the blocks a quarter
    of the image's size; "3x3" leaves all of it, for images of 8 to 32 pixels. time=False leaves the time modules out;
    since these start as the identity, the state of a network without them fits one that has them (strict=False).
    "7x7" has ReLU and one average at its end, as published; "3x3" has SiLU and 2x2 averages, since what guides is the
    gradient in x: on 8-pixel digits that of the published form undid the attack, even with perfect labels.
    Raises ValueError unless there is one count of blocks a width.
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
            raise ValueError(f"{len(widths)} widths and {len(blocks)} counts of blocks: give one count a width")
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

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x (B, channels, H, W), t (B,) -> (B, K)."""
        h, code = self.enter(x), self.code(t) if self.time else None
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

    It has no batch norm: the time module follows the layer norm of each block. time=False leaves the modules out.
    """

    def __init__(
        self, classes: int, shape: tuple[int, ...], width: int = 128, blocks: int = 2, time: bool = True
    ) -> None:
        super().__init__()
        self.time = time
        self.code = nn.Sequential(TimeCode(64), nn.Linear(64, width), nn.SiLU()) if time else None
        self.enter = nn.Linear(math.prod(shape), width)
        self.blocks = nn.ModuleList(_FiLMBlock(width, time) for _ in range(blocks))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x (B, *S), t (B,) -> (B, K)."""
        h, code = self.enter(x.flatten(1)), self.code(t) if self.time else None
        for block in self.blocks:
            h = block(h, code)
        return self.leave(h)
