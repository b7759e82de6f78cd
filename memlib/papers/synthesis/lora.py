"""Low-rank adapters on the attention of Stable Diffusion, trained with Real-Fake's loss. peft does the adapters.

Hu et al. 2021 (LoRA); Hang et al. 2023 (min-SNR weights); Real-Fake eq. 21 and table 7.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from memlib import losses, train
from memlib.cache.weights import require_finite
from memlib.data import Images
from memlib.errors import Refused, needs, reason
from memlib.papers.synthesis.recipe import Training
from memlib.papers.synthesis.stable_diffusion import check_tokens, encode_text, pictures, prompts
from memlib.random import key, to_device
from memlib.shapes import Float

if TYPE_CHECKING:
    from diffusers import StableDiffusionImg2ImgPipeline

_FILE = "pytorch_lora_weights.safetensors"  # diffusers' name
_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]  # the layers that the released code adapts


def min_snr(alphas_cumprod: Float[Tensor, " b"], gamma: float | None) -> Float[Tensor, " b"]:
    """min(SNR, gamma) / SNR with SNR = alpha_bar / (1 - alpha_bar), (B,); 1 for None. Hang et al. 2023, sec. 3.4, 4.2.

    This is the weight for a network that predicts noise.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return torch.ones_like(snr) if gamma is None else snr.clamp(max=gamma) / snr


def matching_released(
    eps_hat: Float[Tensor, " b *s"], eps: Float[Tensor, " b *s"], weight: Float[Tensor, " b"]
) -> Float[Tensor, ""]:
    """|sum over the batch of weight (eps_hat - eps)|^2, a scalar: the matching term of Real-Fake's released code.

    With weights 1 it is B^2 `losses.matching`. Source: `train_text_to_image_lora.py`, "Add Dist Matching Loss": both
    noises are weighted by min-SNR and summed over the batch before they are compared.
    """
    return ((eps_hat - eps).flatten(1) * weight[:, None]).sum(0).square().sum()


def objective(
    eps_hat: Float[Tensor, " b *s"], eps: Float[Tensor, " b *s"], alphas_cumprod: Float[Tensor, " b"], how: Training
) -> Float[Tensor, ""]:
    """The loss of a batch, a scalar: the mean of min_snr |r|^2, plus `how.weight` times the matching term. Eq. 21.

    Matching is printed (eq. 21), unbiased (without its 1/B) or released (weighted sums). All terms are divided by the
    coordinates of a sample, as means in the released code are; eq. 21 prints sums, which are the same loss times a
    constant.

    Arguments:
        eps_hat: predicted noise, (B, *S).
        eps: true noise, (B, *S).
        alphas_cumprod: alpha_bar of each sample's timestep, (B,).
        how: the settings.
    """
    weight = min_snr(alphas_cumprod, how.snr_gamma)
    loss = losses.denoising(eps_hat, eps, weight).mean()
    if how.matching == "printed":
        loss = loss + how.weight * losses.matching(eps_hat, eps)
    elif how.matching == "unbiased":
        loss = loss + how.weight * losses.matching_unbiased(eps_hat, eps)
    elif how.matching == "released":
        loss = loss + how.weight * matching_released(eps_hat, eps, weight)
    return loss / eps[0].numel()


def attach(unet: nn.Module, rank: int, seed: int = 0) -> nn.ParameterList:
    """Add adapters of this rank to all attention of a U-Net; their parameters, float32, the only trainable ones.

    They change nothing yet: of each product, the second matrix is 0. alpha is the rank, so the scale is 1.

    Raises:
        Refused: if the U-Net has adapters already, or peft is not installed.
    """
    with needs("lora"):
        from diffusers.training_utils import cast_training_params
        from peft import LoraConfig
    if attached(unet):
        raise Refused("the U-Net has adapters already: load the pipeline anew")
    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=_ATTENTION)
    with torch.random.fork_rng():
        torch.manual_seed(key(seed, 0))
        unet.add_adapter(config)  # pyright: ignore[reportCallIssue]  # of diffusers' PeftAdapterMixin
    cast_training_params(unet, torch.float32)
    return nn.ParameterList(parameter for parameter in unet.parameters() if parameter.requires_grad)


def attached(unet: nn.Module) -> bool:
    """Whether a U-Net has adapters."""
    return bool(getattr(unet, "peft_config", None))


def fine_tune(
    pipeline: "StableDiffusionImg2ImgPipeline",
    images: Images,
    how: Training | None = None,
    *,
    captions: Sequence[str] | None = None,
    tokens: Float[Tensor, " n w"] | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    every: int = 500,
) -> None:
    """Train adapters on images, in the pipeline, which has them afterwards; nothing else of it changes.

    `train.fit` does it: Adam, gradients clipped at norm 1, bfloat16 where the GPU has it. Images are drawn with
    replacement, so an epoch is N draws. They are encoded once, and a latent is drawn anew from the encoder's law each
    time. One accumulated step is `how.accumulate` batches, each with a matching term of its own.

    Arguments:
        pipeline: from `stable_diffusion.load`.
        images: N images of `how.size` pixels, with names of their classes.
        how: the settings; None is the appendix's, `Training()`.
        captions: one for each image, or None. See `stable_diffusion.prompts`.
        tokens: visual tokens (N, W) from `visual_token.tokens`, or None.
        seed: of the adapters and of all random numbers.
        checkpoint: a folder, from which an interrupted training goes on. It holds the adapters and Adam's moments, and
            does not know the images: give each set its own.
        every: steps between checkpoints.

    Raises:
        Refused: for images, captions or tokens that do not fit, and for a pipeline that has adapters already.
    """
    how = Training() if how is None else how
    pixels, texts = pictures(pipeline, images, how.size), prompts(images, captions)
    check_tokens(pipeline, tokens, len(images))
    adapters = attach(pipeline.unet, how.rank, seed)
    mean, std = _encoded(pipeline, pixels, how)
    bar = pipeline.scheduler.alphas_cumprod.float().cpu()

    def part(rows: Tensor, mirrored: Tensor, steps: Tensor, drawn: Tensor, eps: Tensor) -> Tensor:
        x0 = pipeline.vae.config.scaling_factor * (mean[rows, mirrored].float() + std[rows, mirrored].float() * drawn)
        level = bar[steps].view(-1, 1, 1, 1)
        x, eps = (to_device(t, pipeline.device) for t in (level.sqrt() * x0 + (1 - level).sqrt() * eps, eps))
        told = encode_text(pipeline, [texts[row] for row in rows.tolist()], None if tokens is None else tokens[rows])
        eps_hat = pipeline.unet(x.to(told), to_device(steps, pipeline.device), told).sample.float()
        return objective(eps_hat, eps, to_device(bar[steps], pipeline.device), how)

    def loss(_: nn.Module, generator: torch.Generator) -> Tensor:
        count = how.batch * how.accumulate
        rows, mirrored, steps = (
            torch.randint(high, (count,), generator=generator) for high in (len(texts), mean.shape[1], len(bar))
        )
        drawn, eps = torch.randn(2, count, *mean.shape[2:], generator=generator)
        total = 0.0
        for i, batch in enumerate(zip(*(t.split(how.batch) for t in (rows, mirrored, steps, drawn, eps)), strict=True)):
            value = part(*batch) / how.accumulate
            if i + 1 == how.accumulate:
                return total + value  # train.fit takes its gradient, on top of those below
            with torch.autocast(pipeline.device.type, enabled=False):
                value.backward()
            total = total + value.detach()
        raise AssertionError("accumulate is 1 or more")

    steps = how.steps(len(images))
    options = {"lr": how.lr, "schedule": "constant", "seed": seed, "checkpoint": checkpoint, "every": every}
    train.train(adapters, loss, steps, title="adapters", **options)
    adapters.requires_grad_(False)


def save(pipeline: "StableDiffusionImg2ImgPipeline", folder: str | Path) -> Path:
    """Write the adapters as diffusers does, `pytorch_lora_weights.safetensors`, and return the folder.

    `load_lora_weights(folder)` of any Stable Diffusion pipeline reads them.

    Raises:
        Refused: if the pipeline has no adapters.
    """
    with needs("lora"):
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft import get_peft_model_state_dict
    if not attached(pipeline.unet):
        raise Refused("the pipeline has no adapters to save: call lora.fine_tune first")
    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.unet))
    config = next(iter(pipeline.unet.peft_config.values())).to_dict()
    pipeline.save_lora_weights(str(folder), unet_lora_layers=state, unet_lora_adapter_metadata=config)
    return Path(folder)


def load_adapters(pipeline: "StableDiffusionImg2ImgPipeline", folder: str | Path) -> None:
    """Put the adapters that `save` wrote into a pipeline that has none.

    Raises:
        Refused: if there are none in the folder, they are not finite or do not fit, or the pipeline has some already.
    """
    with needs("lora"):
        from peft import get_peft_model_state_dict
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    file = Path(folder).expanduser() / _FILE
    if attached(pipeline.unet):
        raise Refused("the pipeline has adapters already: load it anew")
    if not file.is_file():
        raise Refused(f"there is no {_FILE} in {str(folder)!r}: give the folder that lora.save wrote")
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise Refused(f"{str(file)!r} is damaged ({str(error).splitlines()[0]}): save the adapters again") from error
    require_finite(state, str(file))
    try:
        pipeline.load_lora_weights(
            str(file.parent), weight_name=_FILE, use_safetensors=True, local_files_only=True, adapter_name="default"
        )
    except Exception as error:  # of peft and of diffusers, for names and shapes that are not theirs
        raise Refused(f"the adapters of {str(folder)!r} do not fit this pipeline ({reason(error)})") from error
    filled = not any(one.is_meta for one in pipeline.unet.parameters())  # what the file lacks
    if not attached(pipeline.unet) or not filled or len(get_peft_model_state_dict(pipeline.unet)) != len(state):
        raise Refused(f"not all {len(state)} adapters of {str(folder)!r} belong to the U-Net of this pipeline")
    pipeline.unet.requires_grad_(False)


@torch.no_grad()
def _encoded(pipeline: "StableDiffusionImg2ImgPipeline", pixels: Tensor, how: Training) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the latents of each image, and of its mirror image under `flip`, (N, 1 or 2, C, h, w)."""
    found = []
    for batch in pixels.split(how.batch):
        views = [batch, batch.flip(-1)] if how.flip else [batch]
        laws = [pipeline.vae.encode(to_device(v, pipeline.device, pipeline.vae.dtype)).latent_dist for v in views]
        found.append([torch.stack([getattr(law, name).cpu() for law in laws], 1) for name in ("mean", "std")])
    mean, std = (torch.cat(part) for part in zip(*found, strict=True))
    return mean, std
