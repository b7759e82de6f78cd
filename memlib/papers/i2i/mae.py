"""The masked autoencoder (He et al. 2022) on transformers' ViTMAE, as a completer of images.

The encoder sees the known patches alone; the decoder gets a mask token for each of the others and returns pixels. One
pass, nothing is drawn: an MAE completes with something like the mean of what could be there.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from memlib.cache.weights import refuse_misfits, require_finite
from memlib.denoiser import evaluating
from memlib.errors import Refused, needs, reason
from memlib.noise import Noise
from memlib.papers.i2i.masks import hidden_tokens, paste

if TYPE_CHECKING:
    from transformers import ViTMAEForPreTraining


IMAGENET_MEAN: tuple[float, float, float] = (-0.03, -0.088, -0.188)
"""ImageNet's mean colour, R G B, of images in [-1, 1] as `data.load` gives them: 2 m - 1 of m in [0, 1]."""

IMAGENET_STD: tuple[float, float, float] = (0.458, 0.448, 0.45)
"""Its standard deviations, 2 s. A checkpoint trained on (x01 - m) / s reads (x - IMAGENET_MEAN) / IMAGENET_STD."""


class Masked(NamedTuple):
    """What the encoder is given: images (B, C, H, W), of which it reads the known patches, and the mask."""

    images: Tensor
    mask: Tensor


class MAE(nn.Module):
    """ViTMAE for standardised square images: `encoder` is its vision transformer, `decoder` the light one behind it.

    Both are transformers' own modules; `MAE.small` makes one to train, `MAE.load` reads a folder.
    """

    patch: int
    shape: tuple[int, int, int]

    def __init__(self, net: "ViTMAEForPreTraining") -> None:
        super().__init__()
        config = cast(Any, net.config)  # whose sizes are declared as a number or a pair; a ViTMAE has numbers
        if config.norm_pix_loss:
            raise Refused(
                "this MAE predicts each patch divided by its own deviation (norm_pix_loss), which is not known for a "
                "hidden one: give a checkpoint trained on plain pixels"
            )
        self.encoder, self.decoder, self.patch = net.vit, net.decoder, config.patch_size
        self.shape = (config.num_channels, config.image_size, config.image_size)

    @classmethod
    def small(
        cls, shape: tuple[int, int, int], patch: int, width: int = 64, depth: int = 3, heads: int = 4, decoder: int = 1
    ) -> Self:
        """An untrained MAE for images of `shape` (C, H, H): `depth` blocks encode, `decoder` blocks decode."""
        with needs("models"):
            from transformers import ViTMAEConfig, ViTMAEForPreTraining  # heavy: only where a model is wanted

        net = ViTMAEForPreTraining(ViTMAEConfig(
            num_channels=shape[0], image_size=shape[1], patch_size=patch,
            hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=2 * width,
            decoder_hidden_size=width, decoder_num_hidden_layers=decoder, decoder_num_attention_heads=heads,
            decoder_intermediate_size=2 * width, initializer_range=width**-0.5,
        ))  # fmt: skip
        # transformers 5 leaves the decoder's position codes at 0 in a fresh model: hidden patches would be told apart
        # by nothing. A checkpoint brings its own.
        net.decoder.initialize_weights((shape[1] // patch) ** 2)
        return cls(net)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The ViTMAE of a local folder (config.json, model.safetensors), such as facebook/vit-mae-base's.

        Images must be standardised as in its training: for facebook's models channel by channel, with this module's
        `IMAGENET_MEAN` and `IMAGENET_STD`.

        Raises:
            Refused: for a folder that is missing, without safetensors or of another model, and for a weight that is
                missing, unexpected, of another shape or not finite, by its name.
        """
        with needs("models"):
            from transformers import ViTMAEForPreTraining

        if not (Path(folder).expanduser() / "config.json").is_file():
            raise Refused(f"{str(folder)!r} holds no config.json: give the folder of a ViTMAE checkpoint")
        try:
            # With output_loading_info it returns a pair, which transformers does not declare.
            net, told = ViTMAEForPreTraining.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
                Path(folder).expanduser(), local_files_only=True, use_safetensors=True, output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name
            )  # fmt: skip
        except Exception as error:  # a dozen kinds, for damaged files and for settings that make no network
            raise Refused(f"{str(folder)!r} cannot be read as a ViTMAE ({reason(error)})") from error
        if missing := sorted(told["missing_keys"]):
            raise Refused(f"{str(folder)!r} lacks {len(missing)} weights of a ViTMAE, the first is {missing[0]!r}")
        refuse_misfits(str(folder), told, "its config.json")
        require_finite(net.state_dict(), str(folder))
        return cls(net).eval()

    def inputs(self, images: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Masked:
        """What the encoder is given for images (B, C, H, W); nothing is drawn."""
        return Masked(images, mask)

    def initial_inputs(self, images: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Masked:
        """What it is given when completion of images (B, C, H, W) begins: `inputs`; the hidden part is not read."""
        return self.inputs(images, mask)

    def with_noise(self, inputs: Masked, noise: Tensor) -> Masked:
        """The same with noise (B, C, H, W) instead of the images, under the same mask: the target of I2I eq. 10."""
        return Masked(noise, inputs.mask)

    def with_hidden_noise(self, inputs: Masked, noise: Tensor) -> Masked:
        """The same as `with_noise`, noise (B, C, H, W): in this family the authors' code agrees with the paper."""
        return self.with_noise(inputs, noise)

    def encode(self, inputs: Masked) -> Tensor:
        """Codes (B, 1 + K, D) of the K known patches, a class token before them."""
        hidden = hidden_tokens(inputs.mask, len(inputs.images), self.patch)
        known = (~hidden).nonzero()[:, 1].reshape(len(hidden), -1)  # (B, K)
        embeddings = self.encoder.embeddings
        tokens = embeddings.patch_embeddings(inputs.images) + embeddings.position_embeddings[:, 1:]
        tokens = tokens.gather(1, known[..., None].expand(-1, -1, tokens.shape[2]))  # (B, K, D)
        first = embeddings.cls_token + embeddings.position_embeddings[:, :1]
        x = torch.cat([first.expand(len(tokens), -1, -1), tokens], 1)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.encoder.layernorm(x)

    def decode(self, codes: Tensor, mask: Tensor) -> Tensor:
        """Pixels (B, C, H, W), known and hidden, from the codes (B, 1 + K, D) of the known patches."""
        hidden = hidden_tokens(mask, len(codes), self.patch)
        # The known patches in reading order, then the hidden ones: where each patch stands in that sequence.
        place = hidden.long().argsort(stable=True).argsort()
        channels, height, width = self.shape
        rows, columns = height // self.patch, width // self.patch
        patches = self.decoder(codes, place).logits
        patches = patches.unflatten(2, (self.patch, self.patch, channels)).unflatten(1, (rows, columns))
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(len(codes), channels, height, width)

    def loss(self, seen: Tensor, truth: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """|D(E(T(seen))) - truth|_2 over the hidden pixels, (B,), unsquared as in I2I eq. C.28; images (B, C, H, W).

        In training truth = seen; the baselines give noise, or other images, as the truth. C.28 takes all pixels; MAE's
        own loss (He et al. 2022, sec. 3) takes the hidden ones, and known pixels are put back anyway.
        """
        error = (self.decode(self.encode(self.inputs(seen, mask)), mask) - truth).masked_fill(~mask, 0.0)
        return torch.linalg.vector_norm(error.flatten(1), dim=1)

    def loss_to_noise(
        self, seen: Tensor, noise: Tensor, mask: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The loss, (B,), with noise (B, C, H, W) as the truth: Noisy Label."""
        return self.loss(seen, noise, mask)

    @torch.no_grad()
    def complete(self, images: Tensor, mask: Tensor, noise: Noise = torch.randn_like) -> Tensor:
        """Images (B, C, H, W) with the hidden pixels filled in and the others untouched; `noise` is not used."""
        with evaluating():
            return paste(images, self.decode(self.encode(self.inputs(images, mask)), mask), mask)
