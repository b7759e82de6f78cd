"""Small right folders of models that memlib reads, each with its reader and a question to what was read."""

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from memlib import adapters, features
from memlib.audit import sources
from memlib.papers.i2i import checkpoints, mage, tokenizer, vqgan
from memlib.papers.synthesis import lora, stable_diffusion

SIZE = 8  # pixels a side, of most


def finite(net: torch.nn.Module) -> None:
    """Every weight is a number."""
    assert all(one.isfinite().all() for one in net.state_dict().values() if one.is_floating_point())


def _unet() -> Any:
    from diffusers import UNet2DModel

    widths = {"block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return UNet2DModel(sample_size=SIZE, in_channels=3, out_channels=3, **widths, **blocks)


def _pipeline(folder: Path) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler

    DDPMPipeline(_unet(), DDPMScheduler(num_train_timesteps=50)).save_pretrained(folder)


def _as_denoiser(folder: Path) -> Callable[[], Any]:
    denoiser = adapters.from_diffusers(folder)
    finite(denoiser)
    return lambda: denoiser(torch.zeros(1, *denoiser.shape), denoiser.sigmas[0])


def _as_audited(folder: Path) -> Callable[[], Any]:
    model = sources.read(str(folder), steps=3)
    return lambda: model.denoiser(torch.zeros(1, *model.shape), model.sigmas[0])


def _edm(folder: Path) -> None:
    from diffusers import EDMEulerScheduler

    _unet().save_pretrained(folder / "unet")
    EDMEulerScheduler().save_pretrained(folder / "scheduler")


def _as_edm(folder: Path) -> Callable[[], Any]:
    denoiser = adapters.from_edm(folder)
    finite(denoiser)
    return lambda: denoiser(torch.zeros(1, *denoiser.shape), torch.tensor(1.0))


def _vae(folder: Path) -> None:
    from diffusers import AutoencoderKL

    AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, latent_channels=2, sample_size=SIZE,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).save_pretrained(folder)  # fmt: skip


def _as_autoencoder(folder: Path) -> Callable[[], Any]:
    coder = adapters.from_vae(folder)
    finite(coder)
    return lambda: coder.decode(coder.encode(torch.zeros(1, coder.channels, 2 * coder.factor, 2 * coder.factor)))


def _mae(folder: Path) -> None:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTMAEConfig(image_size=SIZE, patch_size=4, **sizes, **{f"decoder_{name}": n for name, n in sizes.items()})
    ViTMAEForPreTraining(config).save_pretrained(folder)
    means = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.2]}
    (folder / "preprocessor_config.json").write_text(json.dumps(means))


def _as_completer(family: str) -> Callable[[Path], Callable[[], Any]]:
    def read(folder: Path) -> Callable[[], Any]:
        standard = checkpoints.standard(family, folder)
        assert standard is None or all(one.isfinite().all() for one in standard)
        model: Any = checkpoints.load(family, folder)
        finite(model)
        mask = torch.zeros(1, 1, *model.shape[1:], dtype=torch.bool)
        mask[..., : getattr(model, "patch", 4), : getattr(model, "patch", 4)] = True
        return lambda: model.complete(torch.zeros(1, *model.shape), mask)

    return read


def _words(folder: Path) -> None:
    vqgan.VQGAN.small((3, SIZE, SIZE), 4, codes=8, channels=8, width=8, depth=1, heads=2).save(folder)


def _mage(folder: Path) -> None:
    words = tokenizer.Tokenizer(3, (32, 32), 1, 4, 16)
    mage.MAGE(words, 2, 64, 1, 16, 1).save(folder / "mage.safetensors")


def _inpainter(folder: Path) -> None:
    from diffusers import DDPMScheduler

    from memlib.papers.i2i.diffusion import small_unet

    small_unet((3, SIZE, SIZE), 7, (8, 16), 1).save_pretrained(folder / "unet")
    DDPMScheduler(num_train_timesteps=50).save_pretrained(folder / "scheduler")


def _clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vision = {**sizes, "image_size": SIZE, "patch_size": 4}
    config = CLIPConfig(text_config={**sizes, "vocab_size": 20}, vision_config=vision, projection_dim=6)
    CLIPModel(config).save_pretrained(folder)


def _dinov2(folder: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2}
    Dinov2Model(Dinov2Config(image_size=14, patch_size=7, **sizes)).save_pretrained(folder)


def _embedding(make: Callable[..., features.Embed], **options: Any) -> Callable[[Path], Callable[[], Any]]:
    def read(folder: Path) -> Callable[[], Any]:
        embed = make(folder, **options)
        return lambda: embed(torch.zeros(1, 3, 16, 16) - 0.5)

    return read


def _stable(folder: Path) -> None:
    """As small as its classes allow: latents of 4 x 4, a text of width 16, a tokenizer of letters."""
    import diffusers
    import transformers

    letters = [chr(i) for i in range(97, 123)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    text = transformers.CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1,
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=4, in_channels=2, out_channels=2, cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
        block_out_channels=(8,), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
    )  # fmt: skip
    _vae(folder / "vae")
    diffusers.StableDiffusionPipeline(
        unet=unet, vae=diffusers.AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=transformers.CLIPTextModel(text), scheduler=diffusers.PNDMScheduler(skip_prk_steps=True),
        tokenizer=transformers.CLIPTokenizer({word: i for i, word in enumerate(words)}, [], model_max_length=16),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


@functools.cache
def _stable_place() -> tempfile.TemporaryDirectory:
    place = tempfile.TemporaryDirectory(prefix="memlib-stable-")
    _stable(Path(place.name))
    return place


def _asked(pipeline: Any) -> Any:
    x, text = torch.zeros(1, pipeline.unet.config.in_channels, 4, 4), torch.zeros(1, 3, 16)
    return pipeline.unet(x, torch.tensor([1]), text).sample


def _as_stable(folder: Path) -> Callable[[], Any]:
    pipeline = stable_diffusion.load(folder)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        finite(part)
    return lambda: _asked(pipeline)


def _adapters(folder: Path) -> None:
    pipeline = stable_diffusion.load(_stable_place().name)
    lora.attach(pipeline.unet, 2)
    lora.save(pipeline, folder)


def _as_adapters(folder: Path) -> Callable[[], Any]:
    pipeline = stable_diffusion.load(_stable_place().name)
    lora.load_adapters(pipeline, folder)
    finite(pipeline.unet)
    return lambda: _asked(pipeline)


MODELS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Callable[[], Any]], int]] = {
    "diffusers": (_pipeline, _as_denoiser, 8),
    "diffusers as audited": (_pipeline, _as_audited, 4),
    "EDM": (_edm, _as_edm, 6),
    "autoencoders": (_vae, _as_autoencoder, 6),
    "inpainters": (_inpainter, _as_completer("diffusion"), 4),
    "ViT-MAE": (_mae, _as_completer("mae"), 8),
    "VQ-GAN": (_words, _as_completer("vqgan"), 6),
    "MAGE": (_mage, _as_completer("vqgan"), 4),
    "CLIP": (_clip, _embedding(features.clip), 6),
    "DINOv2": (_dinov2, _embedding(features.dinov2, size=14), 6),
    "Stable Diffusion": (_stable, _as_stable, 4),
    "LoRA": (_adapters, _as_adapters, 4),
}
"""What writes a right folder, what reads one, and batches of inputs."""
