"""CLIP by a tiny model of the same kind, against transformers and its processor."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from memlib import features
from memlib.errors import Refused


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
    vision = {**sizes, "image_size": 16, "patch_size": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    return model, folder


def test_clip_is_that_of_transformers_with_its_processor(tiny_clip):
    from transformers import CLIPImageProcessor

    model, folder = tiny_clip
    levels = torch.randint(0, 256, (5, 3, 40, 30), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    pixels = processor(list(levels), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        want = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    got = features.clip(folder)(levels / 127.5 - 1)
    assert got.shape == (5, 12) and not got.requires_grad
    assert F.cosine_similarity(got, want).min() > 0.9999  # the processor rounds to levels after resizing
    spread = F.cosine_similarity(got, want.flip(0)).min()
    assert spread < 0.9999


def test_clip_takes_grey_images_in_batches(tiny_clip):
    embed = features.clip(tiny_clip[1], batch=2)
    grey = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(embed(grey), embed(grey.repeat(1, 3, 1, 1)))
    torch.testing.assert_close(embed(grey)[3:4], embed(grey[3:4]), rtol=1e-5, atol=1e-6)


def test_clip_refusals(tiny_clip, tmp_path):
    with pytest.raises(Refused, match=r"no config.json"):
        features.clip(tmp_path / "none")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(Refused, match="type 'bert', not 'clip'"):
        features.clip(tmp_path)
    (tmp_path / "config.json").write_text((tiny_clip[1] / "config.json").read_text())
    with pytest.raises(Refused, match="cannot be read"):
        features.clip(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(Refused, match="cannot be read"):
        features.clip(tmp_path)
    weights = load_file(tiny_clip[1] / "model.safetensors")
    short = {name: value for name, value in weights.items() if name != "visual_projection.weight"}
    save_file(short, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(Refused, match="lacks 1 weights, visual_projection.weight for one"):
        features.clip(tmp_path)
    short["visual_projection.weight"] = torch.zeros(3, 3)
    save_file(short, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(Refused, match="cannot be read"):
        features.clip(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(Refused, match="cannot be read"):
        features.clip(tmp_path)
