"""The VQ-GAN of MAGE (Li et al. 2023), which turns an image into words and back, with the layer names of its file.

It is that of Esser et al. 2021 without attention, without biases in its blocks, and with average pooling to halve the
image. Only what completion needs is here: no training loss, no discriminator.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlib.errors import Refused

GROUPS = 32  # of every group norm; the channels of each level are a multiple of it


class Tokenizer(nn.Module):
    """Words (B, L) of images (B, C, H, W) in [0, 1], and images of words.

    Arguments:
        colours: C.
        channels: of each level, from the whole image down; each level after the first halves the image.
        blocks: residual blocks a level.
        width: numbers of a codebook entry.
        words: entries of the codebook.

    Raises:
        Refused: for channels that are not a multiple of 32.
    """

    def __init__(self, colours: int, channels: Sequence[int], blocks: int, width: int, words: int) -> None:
        super().__init__()
        if odd := [n for n in channels if n < GROUPS or n % GROUPS]:
            raise Refused(f"the tokenizer normalises groups of channels by {GROUPS}: {odd[0]} channels do not divide")
        self.encoder = _Encoder(colours, channels, blocks, width)
        self.decoder = _Decoder(colours, channels, blocks, width)
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(words, width)})

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> "Tokenizer":
        """An untrained one of the sizes that the weights of a file have, tensors of any shape by their names.

        Raises Refused where a weight that tells a size is missing.
        """
        levels = _count(state, "encoder.down.{}.block.0.conv1.weight")
        entry, book = _shape(state, "encoder.conv_in.weight", 4), _shape(state, "quantize.embedding.weight", 2)
        channels = [_shape(state, f"encoder.down.{i}.block.0.conv1.weight", 4)[0] for i in range(levels)]
        if not channels or entry[0] != channels[0]:
            raise Refused("the weights hold no level 'encoder.down.0' as wide as 'encoder.conv_in': they are no VQ-GAN")
        return cls(entry[1], channels, _count(state, "encoder.down.0.block.{}.conv1.weight"), book[1], book[0])

    @property
    def words(self) -> int:
        """The entries of the codebook."""
        return self._book.num_embeddings

    @property
    def _book(self) -> nn.Embedding:
        book = self.quantize["embedding"]
        assert isinstance(book, nn.Embedding)
        return book

    def encode(self, images: Tensor) -> Tensor:
        """The words (B, L) of images (B, C, H, W) in [0, 1]: the nearest codebook entries, in reading order.

        In float32 always: bfloat16, in which `train.fit` runs on a GPU, would choose other words than completion does.
        """
        kind = images.device.type
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            codes = self.encoder(images.float()).flatten(2).transpose(1, 2)  # (B, L, width)
            book = self._book.weight
            return (book.square().sum(1) - 2 * codes @ book.T).argmin(2)  # |c - e|^2 without |c|^2, which ranks nothing

    def decode(self, words: Tensor) -> Tensor:
        """Images (B, C, H, W), about [0, 1], of words (B, L) on a square grid."""
        side = round(words.shape[1] ** 0.5)
        return self.decoder(self._book(words).unflatten(1, (side, side)).movedim(3, 1))


class _Encoder(nn.Module):
    def __init__(self, colours: int, channels: Sequence[int], blocks: int, width: int) -> None:
        super().__init__()
        self.conv_in = _conv(colours, channels[0], bias=False)
        inner = (channels[0], *channels[:-1])
        self.down = nn.ModuleList(
            nn.ModuleDict({"block": _level(before, after, blocks)})
            for before, after in zip(inner, channels, strict=True)
        )
        self.mid = _middle(channels[-1])
        self.norm_out = _norm(channels[-1])
        self.conv_out = nn.Conv2d(channels[-1], width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for i, level in enumerate(self.down):
            assert isinstance(level, nn.ModuleDict)
            x = level["block"](F.avg_pool2d(x, 2) if i else x)
        return self.conv_out(F.silu(self.norm_out(_through(self.mid, x))))


class _Decoder(nn.Module):
    def __init__(self, colours: int, channels: Sequence[int], blocks: int, width: int) -> None:
        super().__init__()
        self.conv_in = _conv(width, channels[-1])
        self.mid = _middle(channels[-1])
        inner = (*channels[1:], channels[-1])
        self.up = nn.ModuleList()
        for i, (before, after) in enumerate(zip(inner, channels, strict=True)):
            level = nn.ModuleDict({"block": _level(before, after, blocks)})
            if i:  # every level but that of the whole image doubles it
                level["upsample"] = nn.ModuleDict({"conv": _conv(after, after)})
            self.up.append(level)
        self.norm_out = _norm(channels[0])
        self.conv_out = _conv(channels[0], colours)

    def forward(self, x: Tensor) -> Tensor:
        x = _through(self.mid, self.conv_in(x))
        for level in reversed(self.up):
            assert isinstance(level, nn.ModuleDict)
            x = level["block"](x)
            if "upsample" in level:
                x = _through(level["upsample"], F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(x)))


class _Block(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(before), _conv(before, after, bias=False)
        self.norm2, self.conv2 = _norm(after), _conv(after, after, bias=False)
        if before != after:
            self.nin_shortcut = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return y + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


def _level(before: int, after: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(after if i else before, after) for i in range(blocks)))


def _middle(channels: int) -> nn.ModuleDict:
    return nn.ModuleDict({name: _Block(channels, channels) for name in ("block_1", "block_2")})


def _through(parts: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(parts, nn.ModuleDict)
    for part in parts.values():
        x = part(x)
    return x


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


def _conv(before: int, after: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, bias=bias)


def _count(state: Mapping[str, Tensor], name: str) -> int:
    """How many of the names with 0, 1, 2, ... in their place there are."""
    n = 0
    while name.format(n) in state:
        n += 1
    return n


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state or state[name].ndim != dimensions:
        raise Refused(f"the weights have no {name!r} of {dimensions} dimensions, which tells the sizes of a VQ-GAN")
    return tuple(state[name].shape)
