"""The judges: a classifier trained in seconds, and Inception and CLIP by stand-ins of the same make."""

import math
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from memlib import assets, data, features, metrics
from memlib.errors import Refused
from memlib.features._classifier import _moved


@pytest.fixture(scope="module")
def parts():
    return data.split(data.load("digits"), {"train": 600, "held": 298}, half="explore")


@pytest.fixture(scope="module")
def judge(parts):
    return features.classifier(parts["train"].images, parts["train"].labels)


def test_digits_are_read_and_confidence_matches(judge, parts):
    accuracy, confidence = features.held_out(judge, parts["held"].images, parts["held"].labels)
    assert accuracy.n == 298 and accuracy.rate >= 0.97
    low, high = accuracy.interval()
    assert low - 0.01 < confidence < high + 0.01


def test_what_a_classifier_answers(judge, parts):
    images = parts["held"].images
    logits, features_ = judge.logits(images), judge.embed(images)
    assert logits.shape == (298, 10) and features_.shape == (298, judge.head.in_features)
    torch.testing.assert_close(judge.head(features_), logits)  # the embedding is what the last layer sees
    torch.testing.assert_close(judge.probabilities(images).sum(1), torch.ones(298))
    assert not logits.requires_grad and not judge.training and not any(p.requires_grad for p in judge.parameters())
    torch.testing.assert_close(judge.logits(images[:3]), logits[:3])  # no statistics of the batch
    score, _ = metrics.inception_score(judge.probabilities(images), 1)
    assert 8 < score <= 10


def test_gradients_pass_through_a_frozen_judge(judge, parts):
    images = parts["held"].images[:4].clone().requires_grad_()
    judge(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_noise_lies_farther_than_held_out_digits(judge, parts):
    train, held = judge.embed(parts["train"].images), judge.embed(parts["held"].images)
    noise = torch.rand(298, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert metrics.frechet_distance(train, judge.embed(noise)) > 5 * metrics.frechet_distance(train, held)


def test_the_seed_is_the_network(parts):
    images, labels = parts["train"].images, parts["train"].labels

    def first(seed):
        torch.rand(3)  # what else is drawn does not matter
        return features.classifier(images, labels, steps=3, width=4, seed=seed).logits(images[:5])

    assert torch.equal(first(0), first(0)) and not torch.equal(first(0), first(1))


@pytest.mark.parametrize(("shape", "classes"), [((3, 32, 32), 20), ((1, 28, 28), 10), ((3, 16, 16), 2), ((1, 4, 4), 2)])
def test_other_shapes_and_attributes(shape, classes):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % classes
    images = torch.randn(120, *shape, generator=generator) * 0.1
    images[:, 0, 0, 0] = labels / classes
    net = features.classifier(images, labels, steps=2, width=4, batch=16)
    assert net.logits(images).shape == (120, classes) and net.embed(images).shape[0] == 120


def test_an_attribute_is_learned(parts):
    even = parts["train"].labels % 2
    net = features.classifier(parts["train"].images, even.bool(), steps=100, width=16)
    assert features.held_out(net, parts["held"].images, parts["held"].labels % 2).accuracy.rate > 0.9


def test_moves_are_those_of_roll_but_for_the_edge():
    images = torch.arange(2 * 1 * 4 * 5.0).view(2, 1, 4, 5)
    moved = _moved(images, torch.tensor([1, 0]), torch.tensor([0, -1]))
    assert torch.equal(moved[0, 0, 1:], images[0, 0, :-1]) and torch.equal(moved[0, 0, 0], images[0, 0, 0])
    assert torch.equal(moved[1, ..., :-1], images[1, ..., 1:]) and torch.equal(moved[1, ..., -1], images[1, ..., -1])


def test_classifier_refusals():
    with pytest.raises(Refused, match=r"\(3, 1, 8, 8\) and \(2,\)"):
        features.classifier(torch.zeros(3, 1, 8, 8), torch.zeros(2))
    with pytest.raises(Refused, match="two classes or more"):
        features.classifier(torch.zeros(3, 1, 8, 8), torch.zeros(3))


class StandIn(nn.Module):
    """The face of the published TorchScript: levels 0 to 255 in, 2,048 features or 1,008 probabilities out."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.arange(1008.0) / 1008)

    def forward(
        self, img: Tensor, return_features: bool = False, use_fp16: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        size = torch.tensor([float(img.shape[2]), float(img.shape[3])])
        seen = torch.cat([img.flatten(2)[:, :, :2].flatten(1), size.expand(len(img), 2)], 1)  # two pixels a channel
        if return_features:
            return F.pad(seen, (0, 2040))[:, :, None, None]
        logits = img.mean() * torch.ones(len(img), 1008)
        if not no_output_bias:
            logits = logits + self.bias
        return logits.softmax(1)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception-2015-12-05.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(StandIn()).save(str(path))
    return path


def test_inception_sees_levels_of_three_channels(script):
    judge = features.inception(script, digest=assets.sha256(script))
    images = torch.tensor([-1.0, 2.0, 0.0, 1.0]).view(1, 1, 2, 2).repeat(130, 1, 1, 1)  # several batches
    seen = judge.embed(images)
    assert seen.shape == (130, 2048) and not seen.requires_grad
    assert seen[0, :8].tolist() == [0, 255] * 3 + [2, 2]  # left to the network to resize
    assert judge.embed(torch.full((1, 3, 2, 2), 0.001))[0, 0] == 128  # whole levels
    torch.testing.assert_close(judge.probabilities(images), torch.full((130, 1008), 1 / 1008))  # no bias


def test_inception_resizes_cleanly_if_asked(script):
    judge = features.inception(script, digest=assets.sha256(script), resize="clean")
    stripes = (torch.arange(897) % 2 * 2 - 1.0).expand(1, 3, 897, 897)  # the middle of three is black or white
    seen = judge.embed(stripes)[0]
    assert seen[6:8].tolist() == [299, 299]
    assert abs(seen[1] - 127.5) < 60  # antialiased
    assert math.isclose(judge.embed(torch.zeros(1, 1, 64, 64))[0, 0], 128, abs_tol=1e-3)


def test_no_other_program_is_run(script, tmp_path):
    with pytest.raises(Refused, match="was not run"):
        features.inception(script)
    with pytest.raises(Refused, match="there is no file"):
        features.inception(tmp_path / "none.pt")
    with pytest.raises(Refused, match="'network' or 'clean', not 'nearest'"):
        features.inception(script, digest=assets.sha256(script), resize="nearest")
    with pytest.raises(Refused, match=r"1 or 3 channels, not \(1, 2, 4, 4\)"):
        features.inception(script, digest=assets.sha256(script)).embed(torch.zeros(1, 2, 4, 4))


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
