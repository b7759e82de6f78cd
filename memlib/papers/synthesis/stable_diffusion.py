"""A Stable Diffusion pipeline from a local folder, and the texts and images that it is given.

diffusers, transformers and peft do the work. What Real-Fake adds stands in `lora` (training), `visual_token` (a
token for each image) and `image_to_image` (sampling); the settings are in `recipe`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from memlib.cache.weights import refuse_misfits, require_finite
from memlib.data import Images
from memlib.errors import Refused, needs, reason, usable
from memlib.papers.synthesis.visual_token import with_tokens
from memlib.shapes import Float

if TYPE_CHECKING:
    from diffusers import StableDiffusionImg2ImgPipeline

_PIPELINES = {"StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"}


def load(
    folder: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> "StableDiffusionImg2ImgPipeline":
    """The image-to-image pipeline of a local folder, with the scheduler UniPC (table 6), frozen.

    Nothing is downloaded, no pickle is read and no code in the folder is run. The safety checker is left out, whether
    the folder has one or not: it blacks images out, which training data must not be.

    Arguments:
        folder: as `save_pretrained` of a Stable Diffusion 1.x pipeline writes it: `model_index.json`, `unet`, `vae`,
            `text_encoder`, `tokenizer` and `scheduler`. Weights in half precision only (`*.fp16.safetensors`) are read
            too.
        device: of the networks.
        dtype: of the weights; bfloat16 halves the memory on a GPU. Adapters are trained in float32 all the same.

    Raises:
        Refused: if the folder or a part of it is missing, its weights are not safetensors, do not fit or are not
            finite, the model does not predict noise, the device cannot be used, or a package is not installed.
    """
    with needs("lora"):
        import diffusers
        import transformers
    with usable(device):
        torch.empty(0, device=device)  # before anything is read
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise Refused(f"there is no folder {str(folder)!r}: give that of a Stable Diffusion pipeline")
    kind = _json(root / "model_index.json").get("_class_name")
    if kind not in _PIPELINES:
        raise Refused(
            f"{str(folder)!r} holds a {kind}, not one of Stable Diffusion 1.x: give a StableDiffusionPipeline"
        )
    classes = {
        "unet": diffusers.UNet2DConditionModel,
        "vae": diffusers.AutoencoderKL,
        "text_encoder": transformers.CLIPTextModel,
    }
    parts = {name: _network(root / name, of, dtype) for name, of in classes.items()}
    try:
        scheduler: Any = diffusers.UniPCMultistepScheduler.from_pretrained(
            root,
            subfolder="scheduler",
            timestep_spacing="linspace",  # as for SD 1.5, whose own file names none
        )
        tokenizer = transformers.CLIPTokenizer.from_pretrained(root / "tokenizer", local_files_only=True)
    except Exception as error:  # a dozen kinds, of settings that are not of their types
        raise Refused(f"{str(folder)!r} lacks a scheduler or a tokenizer ({reason(error)}): copy it there") from error
    if (predicts := scheduler.config.get("prediction_type")) != "epsilon":
        raise Refused(
            f"the model of {str(folder)!r} predicts {predicts!r}, and the paper's predicts noise: give SD 1.x"
        )
    build: Any = diffusers.StableDiffusionImg2ImgPipeline  # it does not declare that parts may be None
    pipeline = build(
        **parts,
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def prompts(
    images: Images,
    captions: Sequence[str] | None = None,
    captioned: str = "photo of {name}, {caption}",
    plain: str = "photo of {name}",
) -> list[str]:
    """The text of each image, from the name of its class and its caption. Real-Fake, appendix E.

    The paper's captions are by BLIP-2, which is not part of this package: give a column of yours, or none, as the
    paper does on its four fine-grained sets.

    Arguments:
        images: N images; the names of their classes are said as they are, so they should be words.
        captions: one for each image, in their order, or None.
        captioned: the template with `{name}` and `{caption}`.
        plain: the template without captions.

    Raises:
        Refused: if captions do not pair with images, one is empty, or a class has no name.
    """
    names = [images.names[int(label)] for label in images.labels]
    if not all(name.strip() for name in names):
        raise Refused(f"images of {images.source} have no class names: sort them into a subfolder for each class")
    if captions is None:
        return [plain.format(name=name) for name in names]
    if isinstance(captions, str) or len(captions) != len(names):
        given = "one text" if isinstance(captions, str) else len(captions)
        raise Refused(f"captions are {given} for {len(names)} images: give one for each image, in their order, or None")
    if empty := [i for i, text in enumerate(captions) if not (isinstance(text, str) and text.strip())]:
        raise Refused(f"{len(empty)} captions are empty or no text, number {empty[0]} for one: fill them, or give None")
    return [captioned.format(name=name, caption=text) for name, text in zip(names, captions, strict=True)]


@torch.no_grad()
def encode_text(
    pipeline: "StableDiffusionImg2ImgPipeline", texts: Sequence[str], tokens: Float[Tensor, " b w"] | None = None
) -> Float[Tensor, " b l w"]:
    """What the U-Net is told of texts, (B, L, W): CLIP's hidden states, the last replaced by `tokens` (B, W) if given.

    A text of more than L - 2 = 75 tokens is cut, with a warning by diffusers.
    """
    hidden = pipeline.encode_prompt(list(texts), pipeline.device, 1, False)[0]
    return hidden if tokens is None else with_tokens(hidden, tokens)


def pictures(pipeline: "StableDiffusionImg2ImgPipeline", images: Images, size: int) -> Float[Tensor, " n 3 h w"]:
    """The images as the pipeline takes them, (N, 3, size, size) in [-1, 1]; grey ones are repeated.

    Raises:
        Refused: for no image, a size that the model cannot have, and images of another size.
    """
    unit = pipeline.vae_scale_factor
    if size < unit or size % unit:
        raise Refused(f"images of {size} pixels do not fit latents of {unit} pixels: give a multiple of {unit}")
    if not len(images):
        raise Refused("there is no image: give one or more")
    if (shape := tuple(images.images.shape[-2:])) != (size, size):
        raise Refused(f"images are {shape[0]} x {shape[1]} pixels, not {size}: load them with data.load(..., {size})")
    if (channels := images.images.shape[1]) not in (1, 3):
        raise Refused(f"images have {channels} channels: give 1 or 3")
    return images.images.expand(-1, 3, -1, -1)


def check_tokens(pipeline: "StableDiffusionImg2ImgPipeline", tokens: Float[Tensor, " n w"] | None, count: int) -> None:
    """Refuse visual tokens that are not (N, W), of the model's text width W, one for each of N images."""
    width = pipeline.text_encoder.config.hidden_size
    if tokens is not None and tuple(tokens.shape) != (count, width):
        raise Refused(
            f"visual tokens are {tuple(tokens.shape)}, not {(count, width)}: give visual_token.tokens(..., "
            f"width={width}) of the same images"
        )


def _network(folder: Path, of: Any, dtype: torch.dtype) -> Any:
    """A network of this class with all its weights from the safetensors in a folder, frozen."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        if list(folder.glob("*.bin")) or list(folder.glob("*.ckpt")):
            raise Refused(
                f"{str(folder)!r} has its weights as a pickle, which can run code: if you trust it, convert it by "
                "save_pretrained(folder, safe_serialization=True)"
            )
        raise Refused(f"there are no safetensors in {str(folder)!r}: copy the weights of that part there")
    half = all(".fp16." in file.name for file in files)
    try:
        net, told = of.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            variant="fp16" if half else None,
            torch_dtype=dtype,
            output_loading_info=True,
        )
    except Exception as error:  # a dozen kinds, for damaged files and for settings that make no network
        raise Refused(f"{str(folder)!r} cannot be read ({reason(error)}): copy it again") from error
    own = {name: [key for key in told[name] if "position_ids" not in str(key)] for name in told}  # a buffer of old CLIP
    refuse_misfits(str(folder), {"mismatched_keys": [], **own}, "its config.json")
    require_finite(net.state_dict(), str(folder))
    return net.eval().requires_grad_(False)


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf8")))
    except (OSError, ValueError, TypeError) as error:
        raise Refused(f"{str(file)!r} cannot be read ({reason(error)}): give the folder of a pipeline") from error
