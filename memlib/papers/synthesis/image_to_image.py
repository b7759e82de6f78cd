"""Synthetic images from noised real ones, Real-Fake's "latent prior", as a folder of PNG for `data.load`."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from memlib.cache.atomic import replace_file
from memlib.data import Images
from memlib.errors import Refused
from memlib.papers.synthesis.lora import attached
from memlib.papers.synthesis.recipe import Sampling
from memlib.papers.synthesis.stable_diffusion import check_tokens, encode_text, pictures, prompts
from memlib.random import keyed
from memlib.shapes import Float

if TYPE_CHECKING:
    from diffusers import StableDiffusionImg2ImgPipeline

_RECORD = ".synthesis.json"  # hidden, so that a folder of images stays one


def start_level(pipeline: "StableDiffusionImg2ImgPipeline", how: Sampling) -> float:
    """The noise level sigma, a scalar, at which the images of these settings start.

    The pipeline takes the last int(steps strength) of its steps. Of 30 steps at strength 0.75 these are 22, so it
    starts a little below `noise.strength(alphas_cumprod, 0.75)`: at timestep 733, not 749, which on the schedule of
    Stable Diffusion 1.5 is sigma 3.82, not 4.08. Where steps times strength is whole, as for 20 steps, the two agree
    to a timestep.
    """
    pipeline.scheduler.set_timesteps(how.steps)
    first = pipeline.scheduler.timesteps[how.steps - int(how.steps * how.strength)]
    bar = pipeline.scheduler.alphas_cumprod.double().cpu()[int(first)]
    return float((1 / bar - 1).sqrt())


def draw(
    pipeline: "StableDiffusionImg2ImgPipeline",
    starts: Float[Tensor, " b 3 h w"],
    texts: Sequence[str],
    how: Sampling,
    *,
    seeds: Sequence[int],
    seed: int = 0,
    tokens: Float[Tensor, " b w"] | None = None,
) -> Float[Tensor, " b 3 h w"]:
    """One image for each start: (B, 3, H, W) in [-1, 1] -> (B, 3, H, W) in [-1, 1], on the CPU.

    Arguments:
        pipeline: from `stable_diffusion.load`, with adapters or without.
        starts: real images; they are encoded, noised to `start_level` and denoised.
        texts: the prompt of each. The negative prompt has no visual token.
        how: the settings.
        seeds: a number for each image; its noise depends on this and `seed` alone.
        seed: of all.
        tokens: visual tokens (B, W), or None.
    """
    prompt = encode_text(pipeline, texts, tokens)
    negative = encode_text(pipeline, [how.negative] * len(texts))
    made: Any = pipeline(  # Any: diffusers declares lists of pictures, whatever the output type
        image=(starts + 1) / 2,
        prompt_embeds=prompt,
        negative_prompt_embeds=negative,
        strength=how.strength,
        num_inference_steps=how.steps,
        guidance_scale=how.guidance,
        generator=[keyed(seed, one) for one in seeds],
        cross_attention_kwargs={"scale": how.scale} if attached(pipeline.unet) else None,
        output_type="pt",
    )
    return made.images.float().cpu() * 2 - 1


def synthesize(
    pipeline: "StableDiffusionImg2ImgPipeline",
    images: Images,
    folder: str | Path,
    how: Sampling | None = None,
    *,
    captions: Sequence[str] | None = None,
    tokens: Float[Tensor, " n w"] | None = None,
    seed: int = 0,
) -> Path:
    """A synthetic image for each real one, as PNG in a folder for each class; the folder, for `data.load`.

    File `CLASS/000012.png` starts from image 12. A run that was interrupted goes on with the batches that lack a file.

    Arguments:
        pipeline: from `stable_diffusion.load`, with adapters or without.
        images: N real images of `how.size` pixels.
        folder: new, empty, or that of the same call.
        how: the settings; None is the appendix's, `Sampling()`.
        captions: one for each image, or None. See `stable_diffusion.prompts`.
        tokens: visual tokens (N, W) from `visual_token.tokens`, or None.
        seed: of the noise, with the position of an image.

    Raises:
        Refused: for images, captions or tokens that do not fit, a class whose name cannot be a folder, and a folder
            that holds something else.
    """
    how = Sampling() if how is None else how
    pixels = pictures(pipeline, images, how.size)
    texts = prompts(images, captions, how.captioned, how.plain)
    check_tokens(pipeline, tokens, len(images))
    if strange := [name for name in images.names if "/" in name or "\\" in name or name.startswith(".")]:
        raise Refused(f"a class named {strange[0]!r} cannot be a folder: rename it")
    root = Path(folder).expanduser()
    _claim(root, _record(pipeline, images, texts, tokens, how, seed))
    paths = [root / images.names[int(label)] / f"{i:06d}.png" for i, label in enumerate(images.labels)]
    for first in range(0, len(paths), how.batch):
        rows = range(first, min(first + how.batch, len(paths)))
        if all(paths[i].exists() for i in rows):
            continue
        part = slice(rows.start, rows.stop)
        told = None if tokens is None else tokens[part]
        made = draw(pipeline, pixels[part], texts[part], how, seeds=rows, seed=seed, tokens=told)
        for i, image in zip(rows, made, strict=True):
            _write(paths[i], image)
    return root


def _write(path: Path, image: Tensor) -> None:
    """An image (3, H, W) in [-1, 1] as an 8-bit PNG."""
    levels = ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    replace_file(path, lambda beside: Image.fromarray(levels).save(beside, format="PNG"))


def _record(
    pipeline: "StableDiffusionImg2ImgPipeline",
    images: Images,
    texts: Sequence[str],
    tokens: Tensor | None,
    how: Sampling,
    seed: int,
) -> dict[str, Any]:
    """What decides the images of a folder, but for the weights of the base model."""
    adapters = [p for name, p in sorted(pipeline.unet.named_parameters()) if ".lora_" in name]
    told = [] if tokens is None else [tokens]
    return {
        "settings": asdict(how), "seed": seed, "images": images.fingerprint,
        "texts": hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest(),
        "tokens": _digest(told), "adapters": _digest(adapters),
    }  # fmt: skip


def _digest(tensors: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _claim(root: Path, record: dict[str, Any]) -> None:
    """Take a new or empty folder for this record, or the one that has it. Raises Refused for another."""
    file = root / _RECORD
    if file.exists():
        try:
            kept = dict(json.loads(file.read_text(encoding="utf8")))
        except (OSError, ValueError, TypeError) as error:
            raise Refused(f"{str(file)!r} is damaged: give another folder, or delete {str(root)!r}") from error
        if differs := [name for name, value in record.items() if kept.get(name) != value]:
            raise Refused(f"{str(root)!r} holds images of other {differs[0]}: give another folder, or delete it")
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise Refused(f"{str(root)!r} holds something else: give a new folder for the images")
    replace_file(file, lambda beside: beside.write_text(json.dumps(record, indent=1), encoding="utf8"))
