"""Folders of models that are not right, as fuzzing found them: one sentence, or a model that answers."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("hypothesis")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")
sys.path.append(str(Path(__file__).parent.parent))

from faults import right  # noqa: E402
from memlib.errors import Refused  # noqa: E402


def made(name, folder):
    make, read, _ = right.MODELS[name]
    make(folder)
    return read


def told(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("name", "file", "changes"),
    [
        ("diffusers", "unet/config.json", {"freq_shift": [1]}),  # which makes a network that never answers
        ("EDM", "scheduler/scheduler_config.json", {"sigma_data": {"a": 1}}),
        ("EDM", "unet/config.json", {"norm_eps": float("nan")}),
        ("autoencoders", "config.json", {"act_fn": 3}),
        ("diffusers", "unet/config.json", {"block_out_channels": [{"a": 1}, True]}),  # TypeError
        ("EDM", "unet/config.json", {"block_out_channels": []}),  # IndexError
        ("autoencoders", "config.json", {"block_out_channels": [[8], 16]}),
        ("inpainters", "unet/config.json", {"norm_num_groups": "4"}),
        ("ViT-MAE", "config.json", {"hidden_size": "8"}),
        ("CLIP", "config.json", {"initializer_factor": [1.0]}),  # an error of huggingface_hub's own
        ("DINOv2", "config.json", {"num_attention_heads": 40}),  # ZeroDivisionError
        ("Stable Diffusion", "unet/config.json", {"cross_attention_dim": {"a": 1}}),
        ("Stable Diffusion", "scheduler/scheduler_config.json", {"beta_start": [1]}),
    ],
)
def test_settings_that_make_no_network_are_refused_in_a_sentence(name, file, changes, tmp_path):
    read = made(name, tmp_path / "model")
    told(tmp_path / "model" / file, **changes)
    with pytest.raises(Refused) as refused:
        read(tmp_path / "model")
    assert str(refused.value).count("\n") == 0 and str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("name", ["ViT-MAE", "CLIP", "DINOv2", "diffusers", "autoencoders", "VQ-GAN", "MAGE", "LoRA"])
def test_a_damaged_file_of_weights_is_refused_in_a_sentence(name, tmp_path):
    read = made(name, tmp_path / "model")
    file = next((tmp_path / "model").rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(Refused) as refused:
        read(tmp_path / "model")
    assert str(refused.value).count("\n") == 0


@pytest.mark.parametrize("name", ["diffusers", "EDM", "autoencoders"])
def test_a_weight_in_half_precision_among_others_is_read_as_float32(name, tmp_path):
    read = made(name, tmp_path / "model")
    file = next((tmp_path / "model").rglob("*.safetensors"))
    state = load_file(file)
    first = sorted(one for one in state if one.endswith("conv_in.bias"))[0]
    save_file(state | {first: state[first].bfloat16()}, file)
    assert torch.as_tensor(read(tmp_path / "model")()).dtype == torch.float32


def test_an_adapter_under_another_name_is_refused(tmp_path):
    pytest.importorskip("peft")
    read = made("LoRA", tmp_path / "model")
    file = next((tmp_path / "model").rglob("*.safetensors"))
    state = load_file(file)
    name = sorted(state)[0]
    save_file({f"{one}_old" if one == name else one: value for one, value in state.items()}, file)
    with pytest.raises(Refused, match="adapters"):
        read(tmp_path / "model")
