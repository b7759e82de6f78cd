"""DINOv2's features are those of transformers, and a wrong folder is refused."""

import pytest
import torch
from torch.nn import functional as F

from memlib import features
from memlib.errors import Refused


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from transformers import Dinov2Config, Dinov2Model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = Dinov2Config(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=7
        )
        model = Dinov2Model(config).eval()
    folder = tmp_path_factory.mktemp("dinov2")
    model.save_pretrained(folder)
    return model, folder


def test_features_are_those_of_transformers_with_a_processor(tiny):
    from transformers import BitImageProcessor

    model, folder = tiny
    levels = torch.randint(0, 256, (5, 3, 40, 30), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    processor = BitImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    with torch.no_grad():
        want = model(pixel_values=processor(list(levels), return_tensors="pt")["pixel_values"]).pooler_output
    got = features.dinov2(folder, size=28, batch=2)(levels / 127.5 - 1)
    assert got.shape == (5, 16) and not got.requires_grad
    assert F.cosine_similarity(got - want.mean(0), want - want.mean(0)).min() > 0.99  # it rounds to levels


def test_refusals(tiny, tmp_path):
    with pytest.raises(Refused, match=r"no config.json"):
        features.dinov2(tmp_path)
    with pytest.raises(Refused, match="no multiple"):
        features.dinov2(tiny[1], size=30)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(Refused, match="type 'clip', not 'dinov2'"):
        features.dinov2(tmp_path)
