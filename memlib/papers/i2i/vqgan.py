"""VQ-GAN with a masked-token transformer, in the manner of MAGE (Li et al. 2023): images as words, guessed when hidden.

A vector-quantised autoencoder (diffusers' VQModel) turns an image into a grid of codebook indices and back; unlearning
leaves it as it is. A transformer works on the indices: its encoder reads the known ones, with a mask token for every
hidden one, and its decoder gives each hidden place a distribution over the codebook, from which completion draws.
"""

import json
import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from memlib.cache.atomic import replace_file
from memlib.cache.weights import load_weights, refuse_misfits
from memlib.denoiser import evaluating
from memlib.errors import Refused, needs, reason
from memlib.noise import Noise
from memlib.papers.i2i.masks import hidden_tokens, hide, paste

if TYPE_CHECKING:
    from diffusers import VQModel


class Tokens(NamedTuple):
    """What the encoder is given: codebook indices (B, L) and which of them are hidden, (B, L) bool."""

    indices: Tensor
    hidden: Tensor


class WordCompleter(nn.Module, ABC):
    """A completer of standardised square images that works on their words; `VQGAN` and `mage.MAGE` are two.

    T(x) is tokenised, not x: the convolutions of a tokenizer look past the edge of a patch and would otherwise let
    hidden pixels change known tokens. A subclass sets these:

    tokenizer: between images and words; unlearning leaves it as it is.
    encoder: words (B, L), `mask_word` where hidden, to codes (B, 1 + L, D), of a class token and of every place.
    decoder: codes (B, 1 + L, D) and the hidden places (B, L) to logits (B, L, words).
    patch: pixels a side of a word's place. grid: words a side. shape: (C, H, W) of an image.
    """

    tokenizer: nn.Module
    encoder: nn.Module
    decoder: nn.Module
    mask_word: int
    patch: int
    grid: int
    shape: tuple[int, int, int]

    @abstractmethod
    def indices(self, images: Tensor) -> Tensor:
        """The codebook indices (B, L) of images (B, C, H, W), in reading order."""

    @abstractmethod
    def pixels(self, indices: Tensor) -> Tensor:
        """Images (B, C, H, W) of codebook indices (B, L)."""

    def inputs(self, images: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tokens:
        """What the encoder is given for images (B, C, H, W): the words of T(x); nothing is drawn."""
        with torch.no_grad():
            indices = self.indices(hide(images, mask))
        return Tokens(indices, hidden_tokens(mask, len(images), self.patch))

    def initial_inputs(self, images: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tokens:
        """What it is given when completion of images (B, C, H, W) begins: `inputs`; the hidden part is not read."""
        return self.inputs(images, mask)

    def with_noise(self, inputs: Tokens, noise: Tensor) -> Tokens:
        """The same for the words of noise (B, C, H, W), under the same mask: the target of I2I eq. 10."""
        pixels = inputs.hidden.unflatten(1, (1, self.grid, self.grid))
        pixels = pixels.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        return self.inputs(noise, pixels)

    def with_hidden_noise(self, inputs: Tokens, noise: Tensor) -> Tokens:
        """The same as `with_noise`, noise (B, C, H, W): in this family the authors' code agrees with the paper."""
        return self.with_noise(inputs, noise)

    def encode(self, inputs: Tokens) -> Tensor:
        """Codes (B, 1 + L, D), of a class token and of every place; hidden ones went in as the mask token."""
        return self.encoder(inputs.indices.masked_fill(inputs.hidden, self.mask_word))

    def decode(self, codes: Tensor, hidden: Tensor) -> Tensor:
        """Logits (B, L, words) from codes (B, 1 + L, D) and the hidden places (B, L)."""
        return self.decoder(codes, hidden)

    def loss(self, seen: Tensor, truth: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Cross-entropy of the words of `truth` at the hidden places, nats a place, (B,); images (B, C, H, W).

        In training truth = seen; the baselines give noise, or other images, as the truth. This is MAGE's own training
        loss (its eq. 1). I2I eq. C.27, C.30 and C.33 have the cross-entropy of a discriminator of the generated image
        instead; words are discrete, so no gradient would reach the encoder through it. They also print arg max, where
        the appendix says that losses are minimised and has arg min for the other families. That is right for a
        generator against a discriminator, but not for a training loss such as this, which is minimised, with the signs
        as printed.
        """
        inputs = self.inputs(seen, mask)
        with torch.no_grad():
            words = self.indices(truth)
        logits = self.decode(self.encode(inputs), inputs.hidden)
        surprise = F.cross_entropy(logits.movedim(2, 1), words, reduction="none")  # (B, L)
        return (surprise * inputs.hidden).sum(1) / inputs.hidden.sum(1)

    def loss_to_noise(
        self, seen: Tensor, noise: Tensor, mask: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The loss, (B,), with noise (B, C, H, W) as the truth: Noisy Label."""
        return self.loss(seen, noise, mask)

    @torch.no_grad()
    def complete(
        self, images: Tensor, mask: Tensor, noise: Noise = torch.randn_like, rounds: int = 4, temperature: float = 1.0
    ) -> Tensor:
        """Images (B, C, H, W) with the hidden pixels filled in and the others untouched.

        MaskGIT's decoding (Chang et al. 2022): each of `rounds` draws every hidden word and keeps those that the model
        was surest of, so that after round r a fraction 1 - cos(pi r / 2 rounds) of them is filled in.
        """
        with evaluating():
            return self._complete(images, mask, noise, rounds, temperature)

    def _complete(self, images: Tensor, mask: Tensor, noise: Noise, rounds: int, temperature: float) -> Tensor:
        indices, hidden = self.inputs(images, mask)
        total, still = int(hidden[0].sum()), hidden
        for r in range(1, rounds + 1):
            logits = self.decode(self.encode(Tokens(indices, still)), still) / temperature
            uniform = torch.special.ndtr(noise(logits)).clamp(1e-6, 1 - 1e-6)
            drawn = (logits - (-uniform.log()).log()).argmax(2)  # Gumbel's trick: a draw each
            sure = logits.log_softmax(2).gather(2, drawn[..., None])[..., 0].masked_fill(~still, -math.inf)
            left = int(total * math.cos(math.pi / 2 * r / rounds)) if r < rounds else 0
            kept = sure.argsort(descending=True).argsort() < int(still[0].sum()) - left
            indices, still = torch.where(kept & still, drawn, indices), still & ~kept
        return paste(images, self.pixels(indices), mask)


class VQGAN(WordCompleter):
    """A `WordCompleter` on diffusers' VQModel. `VQGAN.small` makes one to train, `VQGAN.load` reads a folder.

    The authors' own checkpoints are read by `mage.MAGE`.
    """

    tokenizer: "VQModel"
    encoder: "_Blocks"
    decoder: "_Head"

    def __init__(self, tokenizer: "VQModel", size: int, width: int, depth: int, heads: int, decoder: int) -> None:
        super().__init__()
        self.tokenizer = tokenizer.requires_grad_(False)
        config = cast(Any, tokenizer.config)  # a FrozenDict, whose entries are attributes too
        self.patch = 2 ** (len(config.block_out_channels) - 1)
        self.grid, codes = size // self.patch, config.num_vq_embeddings
        self.shape = (config.in_channels, size, size)
        self.mask_word = codes
        self.encoder = _Blocks(codes + 1, self.grid**2, width, depth, heads)
        self.decoder = _Head(codes, self.grid**2, width, decoder, heads)

    @classmethod
    def small(
        cls, shape: tuple[int, int, int], patch: int, codes: int = 64, channels: int = 32, width: int = 64,
        depth: int = 3, heads: int = 4, decoder: int = 1,
    ) -> Self:  # fmt: skip
        """An untrained one for images of `shape` (C, H, H), with `codes` words and a token a `patch`, a power of two.

        Train the tokenizer first (`tokenizer_loss`), then the transformer (`loss`).
        """
        with needs("models"):
            from diffusers import VQModel  # heavy: only where a model is wanted

        halvings = int(math.log2(patch))
        if 2**halvings != patch:
            raise Refused(f"the tokenizer halves the image, so a patch is a power of two, not {patch} pixels")
        tokenizer = VQModel(
            in_channels=shape[0], out_channels=shape[0], sample_size=shape[1], latent_channels=8,
            block_out_channels=(channels,) * (halvings + 1), norm_num_groups=8, num_vq_embeddings=codes,
            down_block_types=("DownEncoderBlock2D",) * (halvings + 1),
            up_block_types=("UpDecoderBlock2D",) * (halvings + 1), mid_block_add_attention=False,
        )  # fmt: skip
        return cls(tokenizer, shape[1], width, depth, heads, decoder)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """From `folder`/vqvae (a diffusers VQModel) and `folder`/transformer.safetensors with transformer.json.

        The JSON holds size, width, depth, heads and decoder, as `save` writes them.

        Raises:
            Refused: for what is missing or does not fit.
        """
        with needs("models"):
            from diffusers import VQModel

        root = Path(folder).expanduser()
        for part in ("vqvae/config.json", "transformer.json", "transformer.safetensors"):
            if not (root / part).is_file():
                raise Refused(f"{str(folder)!r} has no {part}: give a folder that VQGAN.save wrote, or of that layout")
        try:
            found: Any = VQModel.from_pretrained(
                root / "vqvae", local_files_only=True, use_safetensors=True, output_loading_info=True,
                low_cpu_mem_usage=False, ignore_mismatched_sizes=True,  # refused below, by name
            )  # fmt: skip
            tokenizer, told = found
            model = cls(tokenizer, **json.loads((root / "transformer.json").read_text(encoding="utf8")))
            weights = load_file(root / "transformer.safetensors")
        except Exception as error:  # a dozen kinds, for damaged files and for settings that make no network
            raise Refused(f"{str(folder)!r} cannot be read as a VQGAN ({reason(error)})") from error
        refuse_misfits(str(root / "vqvae"), told, "its config.json")
        load_weights(model, {f"tokenizer.{k}": v for k, v in tokenizer.state_dict().items()} | weights, str(folder))
        return model.eval()

    def save(self, folder: str | Path) -> None:
        """Write the layout that `load` reads."""
        root = Path(folder).expanduser()
        self.tokenizer.save_pretrained(root / "vqvae")
        weights = {k: v for k, v in self.state_dict().items() if not k.startswith("tokenizer.")}
        replace_file(root / "transformer.safetensors", lambda beside: save_file(weights, beside))
        settings = {"size": self.shape[1], **self.encoder.settings, "decoder": len(self.decoder.layers)}
        replace_file(root / "transformer.json", lambda beside: beside.write_text(json.dumps(settings), encoding="utf8"))

    def indices(self, images: Tensor) -> Tensor:
        """The codebook indices (B, L) of images (B, C, H, W), in reading order."""
        latents = self.tokenizer.encode(images).latents
        return self.tokenizer.quantize(latents)[2][2].view(len(images), -1)

    def pixels(self, indices: Tensor) -> Tensor:
        """Images (B, C, H, W) of codebook indices (B, L)."""
        book = self.tokenizer.quantize.embedding
        latents = book(indices).unflatten(1, (self.grid, self.grid)).movedim(3, 1)
        return cast(Any, self.tokenizer.decode(latents, force_not_quantize=True)).sample  # a DecoderOutput

    def tokenizer_loss(self, images: Tensor) -> Tensor:
        """Reconstruction and codebook terms on images (B, C, H, W), a scalar: van den Oord et al. 2017, eq. 3.

        Without the perceptual and adversarial terms of Esser et al. 2021 (VQGAN), which small images do not need.
        """
        output = self.tokenizer(images)
        return F.mse_loss(output.sample, images) + output.commit_loss


class _Blocks(nn.Module):
    """Words (B, L) with places and a class token through `depth` transformer blocks: (B, 1 + L, width)."""

    def __init__(self, words: int, places: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.settings = {"width": width, "depth": depth, "heads": heads}
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(0.5 * torch.randn(1, 1 + places, width))
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.layers = nn.ModuleList(_layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, words: Tensor) -> Tensor:
        x = torch.cat([self.first.expand(len(words), -1, -1), self.words(words)], 1) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class _Head(nn.Module):
    """Codes (B, 1 + L, width) to logits (B, L, words): hidden places get the class token's code, as MAGE pads."""

    def __init__(self, words: int, places: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, width)
        self.places = nn.Parameter(0.5 * torch.randn(1, 1 + places, width))
        self.layers = nn.ModuleList(_layer(width, heads) for _ in range(depth))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, words))

    def forward(self, codes: Tensor, hidden: Tensor) -> Tensor:
        x = self.enter(codes)
        padded = torch.where(hidden[..., None], x[:, :1], x[:, 1:])
        x = torch.cat([x[:, :1], padded], 1) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.leave(x[:, 1:])


def _layer(width: int, heads: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
