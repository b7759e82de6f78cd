"""MAGE (Li et al. 2023) as its authors publish it: the weights of https://github.com/LTH14/mage, read by their names.

The I2I paper unlearns this model and calls it VQ-GAN. Two files make it: a transformer, `mage*.pth`, and its tokenizer,
`vqgan*.ckpt`; either may be safetensors. Images are standardised as for ImageNet and become [0, 1] inside, where the
tokenizer lives. So T(x), 0 where hidden, is ImageNet's mean colour there, and noise is clamped to [0, 1]: both are what
the I2I authors' code does.
"""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from memlib.cache.atomic import replace_file
from memlib.cache.weights import refuse_misfits, require_finite
from memlib.errors import Refused
from memlib.noise import Noise
from memlib.papers.i2i.mae import IMAGENET_MEAN, IMAGENET_STD
from memlib.papers.i2i.tokenizer import Tokenizer
from memlib.papers.i2i.vqgan import WordCompleter

LABELS = 1000  # words behind those of the codebook, for classes; after them comes the mask word
_CLASS = 76  # which of these stands for the class token
_HEAD = 64  # units of a head in the encoder, of ViT-B and of ViT-L
_DECODER_HEADS = 16

_NAMES = (  # ours and theirs; the first that fits the beginning counts
    ("tokenizer.", "vqgan."),
    ("encoder.words.", "token_emb.word_embeddings."),
    ("encoder.places.", "token_emb.position_embeddings."),
    ("encoder.enter.", "token_emb.LayerNorm."),
    ("encoder.layers.", "blocks."),
    ("encoder.norm.", "norm."),
    ("decoder.enter.", "decoder_embed."),
    ("decoder.places", "decoder_pos_embed_learned"),
    ("decoder.layers.", "decoder_blocks."),
    ("decoder.norm.", "decoder_norm."),
    ("decoder.leave.", "mlm_layer."),
    ("decoder.bias", "mlm_layer.bias"),
)
_IN_A_LAYER = (
    ("self_attn.in_proj_", "attn.qkv."),
    ("self_attn.out_proj.", "attn.proj."),
    ("linear1.", "mlp.fc1."),
    ("linear2.", "mlp.fc2."),
)
_UNUSED = {  # of the released class, which its own forward pass never reads
    *("patch_embed.proj.weight", "patch_embed.proj.bias", "cls_token", "pos_embed", "mask_token", "decoder_pos_embed"),
    *("decoder_pred.weight", "decoder_pred.bias", "token_emb.position_ids"),
}


class MAGE(WordCompleter):
    """A completer of square colour images, standardised by `mae.IMAGENET_MEAN` and `mae.IMAGENET_STD`.

    `encoder` holds what the released class calls token_emb, blocks and norm; `decoder` the rest. The decoder scores
    words by their embeddings, which are the encoder's: it has a copy of its own, which nothing trains, or a decoder
    that should be frozen would change with the encoder. In the released code the embeddings are shared.

    Other differences to the released code: no dropout in training; no place is dropped before the encoder, which reads
    a mask word there, as in completion; the cross-entropy has no label smoothing; completion draws from the model and
    keeps the surest words, without noise on how sure it is; hidden are the places of the mask, not those around it too;
    known pixels are put back with a sharp edge.

    Arguments:
        tokenizer: images of [0, 1] to words and back.
        grid: words a side.
        width, depth: of the encoder, a multiple of 64 units; 64 a head.
        decoder_width, decoder_depth: of the decoder, a multiple of 16 units; 16 heads.

    Raises:
        Refused: for a width that is no such multiple.
    """

    tokenizer: Tokenizer
    encoder: "_Encoder"
    decoder: "_Decoder"
    mean: Tensor
    std: Tensor

    def __init__(
        self, tokenizer: Tokenizer, grid: int, width: int, depth: int, decoder_width: int, decoder_depth: int
    ) -> None:
        super().__init__()
        if width % _HEAD or decoder_width % _DECODER_HEADS:
            raise Refused(
                f"MAGE has {_HEAD} units a head in its encoder and {_DECODER_HEADS} heads in its decoder: widths of "
                f"{width} and {decoder_width} do not divide"
            )
        self.tokenizer = tokenizer.requires_grad_(False)
        self.grid, self.patch = grid, 2 ** (len(tokenizer.encoder.down) - 1)
        self.shape = (tokenizer.encoder.conv_in.in_channels, grid * self.patch, grid * self.patch)
        self.mask_word = tokenizer.words + LABELS
        self.encoder = _Encoder(tokenizer.words, grid**2, width, depth)
        self.decoder = _Decoder(tokenizer.words, grid**2, width, decoder_width, decoder_depth)
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """From a folder with `mage*.safetensors` or `mage*.pth` and `vqgan*.safetensors` or `vqgan*.ckpt`.

        Sizes are read off the weights. A transformer's file with the tokenizer in it, as the released code saves it,
        needs no second file. A pickle is read by `torch.load(weights_only=True)`, which runs no code of the file.

        Raises:
            Refused: for a file that is missing, unreadable or no plain weights, two files of one kind, and a weight
                that is missing, unexpected, of another shape or not finite, by its name in the file.
        """
        root = Path(folder).expanduser()
        file = transformer_file(root)
        if file is None:
            raise Refused(f"{str(folder)!r} has no mage*.safetensors and no mage*.pth: give the folder of a MAGE")
        state = {name: value for name, value in read_weights(file).items() if name not in _UNUSED}
        if not any(name.startswith("vqgan.") for name in state):
            other = _one(root, "vqgan*.safetensors", "vqgan*.ckpt")
            if other is None:
                raise Refused(
                    f"{str(file)!r} holds no tokenizer, and {str(folder)!r} no vqgan*.ckpt or vqgan*.safetensors: put "
                    "the one that it was trained with there"
                )
            state |= {f"vqgan.{name}": value for name, value in read_weights(other).items()}
        model = cls._like(state, str(file))
        model._fill(state, str(file))
        return model.eval()

    def save(self, file: str | Path) -> None:
        """Write the weights, the tokenizer's among them, as one safetensors file by the authors' names.

        `load` reads it from a folder where its name begins with `mage`. What their class holds and never reads is not
        in it, and their decoder would score words by the encoder's embeddings, as the class says.
        """
        weights = {_theirs(name): value.contiguous() for name, value in self._published().items()}
        replace_file(Path(file).expanduser(), lambda beside: save_file(weights, beside))

    @classmethod
    def _like(cls, state: Mapping[str, Tensor], place: str) -> Self:
        """An untrained one of the sizes of these weights."""
        sizes = {}
        for name in ("token_emb.position_embeddings.weight", "decoder_embed.weight"):
            if name not in state or state[name].ndim != 2:
                raise Refused(f"the weights of {place!r} are not those of MAGE: {name!r} is missing")
            sizes[name] = state[name].shape
        (places, width), (decoder_width, _) = sizes.values()
        grid = math.isqrt(places - 1)
        depths = [
            len({name.split(".")[1] for name in state if name.startswith(f"{blocks}.")})
            for blocks in ("blocks", "decoder_blocks")
        ]
        words = {name.removeprefix("vqgan."): value for name, value in state.items() if name.startswith("vqgan.")}
        return cls(Tokenizer.like(words), grid, width, depths[0], decoder_width, depths[1])

    def _fill(self, state: Mapping[str, Tensor], place: str) -> None:
        own = {_theirs(name): value for name, value in self._published().items()}
        told = {
            "missing_keys": [name for name in own if name not in state],
            "unexpected_keys": [name for name in state if name not in own],
            "mismatched_keys": [name for name, old in own.items() if name in state and state[name].shape != old.shape],
        }
        refuse_misfits(place, told, "MAGE")
        require_finite(state, place)
        filled = {name: state[_theirs(name)] for name in self._published()}
        self.load_state_dict(filled | {"decoder.words": filled["encoder.words.weight"][: len(self.decoder.words)]})

    def _published(self) -> dict[str, Tensor]:
        """The weights that the authors' files have, by our names."""
        return {name: value for name, value in self.state_dict().items() if name != "decoder.words"}

    def indices(self, images: Tensor) -> Tensor:
        """The codebook indices (B, L) of images (B, C, H, W), in reading order; what lies outside [0, 1] is clamped."""
        return self.tokenizer.encode(((images * self.std + self.mean + 1) / 2).clamp(0, 1))

    def pixels(self, indices: Tensor) -> Tensor:
        """Images (B, C, H, W), standardised, of codebook indices (B, L)."""
        return (2 * self.tokenizer.decode(indices).clamp(0, 1) - 1 - self.mean) / self.std

    @torch.no_grad()
    def complete(
        self, images: Tensor, mask: Tensor, noise: Noise = torch.randn_like, rounds: int = 20, temperature: float = 1.0
    ) -> Tensor:
        """Images (B, C, H, W) with the hidden pixels filled in and the others untouched, in 20 rounds, as released."""
        return super().complete(images, mask, noise, rounds, temperature)


class _Encoder(nn.Module):
    """Words (B, L), a class token before them, to codes (B, 1 + L, width)."""

    def __init__(self, words: int, places: int, width: int, depth: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words + LABELS + 1, width)
        self.places = nn.Embedding(1 + places, width)
        self.enter = nn.LayerNorm(width, eps=1e-6)
        self.layers = nn.ModuleList(_layer(width, width // _HEAD) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.first = words + _CLASS

    def forward(self, words: Tensor) -> Tensor:
        words = torch.cat([words.new_full((len(words), 1), self.first), words], 1)
        x = self.enter(self.words(words) + self.places.weight)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class _Decoder(nn.Module):
    """Codes (B, 1 + L, width) to logits (B, L, words): hidden places get the class token's code."""

    words: Tensor

    def __init__(self, words: int, places: int, width: int, inner: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, inner)
        self.places = nn.Parameter(torch.zeros(1, 1 + places, inner))
        self.layers = nn.ModuleList(_layer(inner, _DECODER_HEADS) for _ in range(depth))
        self.norm = nn.LayerNorm(inner, eps=1e-6)
        self.leave = nn.ModuleDict({"fc": nn.Linear(inner, width), "ln": nn.LayerNorm(width)})
        self.bias = nn.Parameter(torch.zeros(1, 1, words + LABELS + 1))
        self.register_buffer("words", torch.zeros(words, width))  # embeddings, from the encoder

    def forward(self, codes: Tensor, hidden: Tensor) -> Tensor:
        x = self.enter(codes)
        padded = torch.where(hidden[..., None], x[:, :1], x[:, 1:])
        x = torch.cat([x[:, :1], padded], 1) + self.places
        for layer in self.layers:
            x = layer(x)
        x = self.leave["ln"](F.gelu(self.leave["fc"](self.norm(x[:, 1:]))))
        return x @ self.words.T + self.bias[..., : len(self.words)]


def _layer(width: int, heads: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        width,
        heads,
        4 * width,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
    )


def _theirs(name: str) -> str:
    """The name that a weight of ours has in the authors' files."""
    ours, theirs = next(pair for pair in _NAMES if name.startswith(pair[0]))
    name = theirs + name.removeprefix(ours)
    if "blocks." in theirs:
        for own, other in _IN_A_LAYER:
            name = name.replace(own, other)
    return name


def transformer_file(folder: str | Path) -> Path | None:
    """The file of a MAGE's transformer in a folder, or None. Raises Refused for two."""
    return _one(Path(folder).expanduser(), "mage*.safetensors", "mage*.pth")


def _one(root: Path, *patterns: str) -> Path | None:
    found = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    if len(found) > 1:
        names = " and ".join(repr(path.name) for path in found[:2])
        raise Refused(f"{str(root)!r} holds {names}: keep the one to be read")
    return found[0] if found else None


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """The weights of a file, tensors of any shape by name, on the CPU: safetensors, or a pickle of weights alone.

    Of a training checkpoint, the entry `model` or `state_dict` is taken; half precision becomes float32.

    Raises:
        Refused: for what is no such file, and for a pickle that holds more than weights and plain values.
    """
    try:
        held = _held(Path(file))
    except Exception as error:  # a dozen kinds, for damaged files too; that of pickle is named by pickle alone
        raise Refused(
            f"{str(file)!r} is damaged, or holds more than weights and plain values, which could run code: download it "
            "again or, if you trust it, save its weights as safetensors"
        ) from error
    for entry in ("model", "state_dict"):
        if isinstance(held, dict) and isinstance(held.get(entry), Mapping):
            held = held[entry]
    if not isinstance(held, Mapping) or not held or not all(isinstance(value, Tensor) for value in held.values()):
        raise Refused(f"{str(file)!r} holds no weights by name, alone or as its entry 'model' or 'state_dict'")
    return {name: value.float() if value.is_floating_point() else value for name, value in held.items()}


def _held(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return load_file(file)
    with torch.serialization.safe_globals([argparse.Namespace]):  # the options that the authors' training saves along
        return torch.load(file, map_location="cpu", weights_only=True)
