"""Folders of models that somebody else made: broken, of other sizes, or with a pickle where safetensors is meant.

Each begins as a small right one. What a reader returns then has finite weights and answers once.
"""

import functools
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from faults import fuzz, spoiling
from faults.weights import EDITS, Bomb, Edit, edited
from memlib import adapters, features
from memlib.audit import sources
from memlib.papers.i2i import checkpoints, mage, tokenizer, vqgan
from memlib.papers.synthesis import lora, stable_diffusion

SIZE = 8  # pixels a side, of most
# No number that counts layers is so large that building a network of them would be the test.
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 40), st.floats(), st.text(max_size=8),
        st.sampled_from(["silu", "DownBlock2D", "UpBlock2D", "UNet2DModel", "epsilon", "1", "../model", "auto"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


class Folder(NamedTuple):
    """Which file of a right folder differs, and how: entries of JSON, tensors, bytes, or what lies there instead."""

    which: int
    how: str
    entries: list[tuple[int, str, Any]]
    edits: list[Edit]
    changes: list
    protocol: int


def folders() -> st.SearchStrategy[Folder]:
    """A folder with one file that is not right, as a rule."""
    entry = st.tuples(st.integers(0, 99), st.sampled_from(["drop", "set", "add", "rename"]), VALUES)
    return st.builds(
        Folder,
        st.integers(0, 99),
        st.sampled_from(["json", "json", "json", "tensors", "tensors", "bytes", *PLACED]),
        st.lists(entry, min_size=1, max_size=3),
        st.lists(EDITS, min_size=1, max_size=2),
        st.lists(spoiling.CHANGES, min_size=1, max_size=2),
        st.integers(0, 5),
    )


PLACED = ("gone", "empty", "a folder", "another file", "a pickle", "a pickle beside")


def spoilt(folder: Path, given: Folder) -> Path:
    """Change one file of a folder; a marker below it, which a pickle would make."""
    marker = folder.parent / "it-ran"
    wanted = {"json": "*.json", "tensors": "*.safetensors", "a pickle": "*.safetensors"}.get(given.how, "*")
    files = [path for path in sorted(folder.rglob(wanted)) if path.is_file()]
    files = files or [path for path in sorted(folder.rglob("*")) if path.is_file()]
    path = files[given.which % len(files)]
    if given.how == "json" and path.suffix == ".json":
        path.write_text(json.dumps(_told(json.loads(path.read_text(encoding="utf8")), given.entries)))
    elif given.how == "tensors":
        save_file({name: one.contiguous() for name, one in edited(load_file(path), given.edits).items()}, path)
    elif given.how in ("bytes", "json"):
        path.write_bytes(spoiling.changed(path.read_bytes(), given.changes))
    elif given.how == "gone":
        path.unlink()
    elif given.how == "empty":
        path.write_bytes(b"")
    elif given.how == "a folder":
        path.unlink()
        path.mkdir()
    elif given.how == "another file":
        other = files[(given.which // 7) % len(files)]
        path.write_bytes(other.read_bytes())
    else:
        bomb = pickle.dumps({"weight": Bomb(os.mkdir, str(marker))}, protocol=given.protocol)
        names = [path] if given.how == "a pickle" else [path.with_suffix(end) for end in (".bin", ".pth", ".ckpt")]
        for name in names:
            name.write_bytes(bomb)
        if given.how == "a pickle beside" and path.suffix == ".safetensors":
            path.unlink()
    return marker


def _told(config: Any, entries: list[tuple[int, str, Any]]) -> Any:
    """A JSON object after changes of its entries, or of those of an object in it."""
    if not isinstance(config, dict):
        return entries[0][2]
    for which, how, value in entries:
        inner = [one for one in config.values() if isinstance(one, dict) and one]
        part = inner[which % len(inner)] if inner and which % 3 == 0 else config
        name = sorted(part)[which % len(part)] if part else "nothing"
        if how == "drop":
            part.pop(name, None)
        elif how == "set":
            part[name] = value
        elif how == "rename":
            part[f"{name}_old"] = part.pop(name, None)
        else:
            part[f"further_{which}"] = value
    return config


def reader(make: Callable[[Path], None], read: Callable[[Path], Callable[[], Any]]) -> fuzz.Read:
    """A reader of what `make` writes. `read(folder)` returns a call of the model, whose tensors must be finite."""

    @functools.cache
    def right() -> tempfile.TemporaryDirectory:
        place = tempfile.TemporaryDirectory(prefix="memlib-model-")
        torch.manual_seed(0)
        make(Path(place.name))
        read(Path(place.name))()  # it is right, or nothing that follows means anything
        return place

    def one(folder: Path, given: Folder) -> None:
        model = folder / "model"
        shutil.copytree(right().name, model)
        marker = spoilt(model, given)
        try:
            call = read(model)
        finally:
            assert not marker.exists(), f"the code in the file ran: {given}"
        assert torch.as_tensor(call()).isfinite().all()

    return one


def finite(net: torch.nn.Module) -> None:
    """Every weight is a number."""
    assert all(one.isfinite().all() for one in net.state_dict().values() if one.is_floating_point())


# Right folders, and how each is read and asked.


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

KINDS = {
    f"models, {name}": fuzz.kind(folders, reader(make, read), cases) for name, (make, read, cases) in MODELS.items()
}
