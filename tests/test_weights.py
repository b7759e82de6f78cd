"""Weights that cannot be right, at every place that reads some: missing, unexpected, misshapen, not finite, by name.

Those of diffusion networks are in test_schedules.py.
"""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from memlib import features
from memlib.cache.weights import load_weights
from memlib.errors import Refused
from memlib.papers.i2i import MAE, VQGAN

CHANGES = {
    "missing": lambda w, name: w.pop(name),
    "unexpected": lambda w, name: w.update({f"{name}.more": torch.zeros(3)}),
    "of another shape": lambda w, name: w.update({name: torch.zeros(3, 5, 7)}),
    "not finite": lambda w, name: w[name].view(-1)[:2].fill_(torch.nan),
}


def spoil(file, name, change):
    weights = load_file(file)
    assert name in weights
    CHANGES[change](weights, name)
    save_file(weights, file, {"format": "pt"})


def sentence(name, change):
    """What every refusal has: the entry, and what is wrong with it."""
    word = {"missing": "missing|lacks|lack", "not finite": "NaN or infinite", "of another shape": "another shape"}
    return f"{name}.*({word.get(change, change)})|({word.get(change, change)}).*{name}"


@pytest.mark.parametrize("change", CHANGES)
def test_a_state_dict(change):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = {name: t.clone() for name, t in net.state_dict().items()}
    load_weights(net, state, "mine")
    before = {name: t.clone() for name, t in net.state_dict().items()}
    CHANGES[change](state, "0.weight")
    with pytest.raises(Refused, match=sentence("0.weight", change)) as refusal:
        load_weights(net, state, "mine")
    assert "'mine'" in str(refusal.value)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())  # all or nothing


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_descriptor(change):
    reference = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    state = features.learn_copies(reference, steps=1)
    features.copies(reference, state)
    name = next(name for name, t in state.items() if t.is_floating_point() and t.numel() > 2)
    CHANGES[change](state, name)
    with pytest.raises(Refused, match=sentence(name, change)):
        features.copies(reference, state)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("part", ["vqvae/diffusion_pytorch_model.safetensors", "transformer.safetensors"])
def test_a_vqgan(tmp_path, part, change):
    VQGAN.small((1, 8, 8), 2, codes=16, channels=8, width=16, depth=2, heads=2).save(tmp_path)
    VQGAN.load(tmp_path)
    name = next(name for name, t in load_file(tmp_path / part).items() if t.numel() > 2)
    spoil(tmp_path / part, name, change)
    with pytest.raises(Refused, match=sentence(name, change)):
        VQGAN.load(tmp_path)


@pytest.mark.parametrize("change", CHANGES)
def test_a_masked_autoencoder(tmp_path, change):
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    decoder = {f"decoder_{name}": size for name, size in sizes.items()}
    config = ViTMAEConfig(num_channels=1, image_size=8, patch_size=2, **sizes, **decoder)
    ViTMAEForPreTraining(config).save_pretrained(tmp_path)
    MAE.load(tmp_path)
    name = "decoder.decoder_pred.weight"
    spoil(tmp_path / "model.safetensors", name, change)
    with pytest.raises(Refused, match=sentence(name, change)):
        MAE.load(tmp_path)


@pytest.mark.parametrize("change", CHANGES)
def test_clip(tmp_path, change):
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
    vision = {**sizes, "image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).save_pretrained(tmp_path)
    features.clip(tmp_path)
    name = "visual_projection.weight"
    spoil(tmp_path / "model.safetensors", name, change)
    with pytest.raises(Refused, match=sentence(name, change)):
        features.clip(tmp_path)
