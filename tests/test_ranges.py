"""Images in another range than an embedder takes: refused where that is certain, announced once where it is likely."""

import hashlib
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from memlib import data, features
from memlib.errors import Refused

LEVELS = torch.randint(0, 256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
IMAGES = LEVELS / 127.5 - 1
UNIT = LEVELS / 255


class Stub(nn.Module):
    """The interface of the published Inception; it keeps what it sees."""

    def forward(self, images, return_features=False, no_output_bias=False):
        self.seen = images
        return images.flatten(1)


class Echo(nn.Module):
    """An SSCD that returns its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


@pytest.fixture(scope="module")
def embedders(tmp_path_factory):
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("weights")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
    CLIPModel(
        CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 16, "patch_size": 8}, projection_dim=4)
    ).save_pretrained(folder / "clip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Echo()), folder / "echo.pt")
    digest = hashlib.sha256((folder / "echo.pt").read_bytes()).hexdigest()
    judge = features.classifier(IMAGES, np.arange(40) % 2, steps=2)  # labels may be a numpy array
    return {
        "sscd": features.sscd(str(folder / "echo.pt"), digest, 8),
        "clip": features.clip(str(folder / "clip")),
        "inception": features.Inception(Stub()).embed,
        "centred": features.centred(IMAGES),
        "half_whitened": features.half_whitened(IMAGES),
        "latents": features.latents(IMAGES, 9)[0],
        "copies": features.copies(IMAGES, features.learn_copies(IMAGES, steps=1)),
        "classifier": judge.embed,
        "probabilities": judge.probabilities,
    }


NAMES = ["sscd", "clip", "inception", "centred", "half_whitened", "latents", "copies", "classifier", "probabilities"]


@pytest.mark.parametrize("name", NAMES)
def test_every_embedder_refuses_integers_and_announces_other_ranges(embedders, name):
    embed = embedders[name]
    for wrong in (LEVELS, LEVELS.numpy(), LEVELS.long()):
        with pytest.raises(Refused, match=r"images of floats in \[-1, 1\], not of torch.*give images / 127.5 - 1"):
            embed(wrong)
    with pytest.warns(UserWarning, match=r"all values lie in \[0, 1\].*give 2 \* images - 1") as told:
        embed(UNIT)
    assert len(told) == 1
    with pytest.warns(UserWarning, match="all values lie between 0 and 255"):
        embed(LEVELS.float())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        want = embed(IMAGES)
        torch.testing.assert_close(embed(IMAGES.numpy()), want)
        embed(torch.zeros(2, 1, 8, 8))  # a grey image, not one in another range
        embed(1.3 * IMAGES)  # a sampler may leave the range


@pytest.mark.parametrize("fit", [features.centred, features.half_whitened, lambda x: features.latents(x, 9)[0]])
def test_a_reference_in_the_range_of_its_images_is_right(fit):
    """Both in [0, 1]: the features are those of [-1, 1], up to scale. One of each is announced."""
    embed = fit(UNIT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cosine = torch.cosine_similarity(embed(UNIT), fit(IMAGES)(IMAGES))
    torch.testing.assert_close(cosine, torch.ones(40), rtol=1e-4, atol=0)
    with pytest.warns(UserWarning, match=r"values reach below 0, but those of the reference lie in \[0, 1\]"):
        embed(IMAGES)
    with pytest.raises(Refused, match="a reference takes images of floats"):
        fit(LEVELS)


def test_what_clips_to_the_range_announces_its_own_training_images():
    with pytest.warns(UserWarning, match=r"copies: all values lie in \[0, 1\]"):
        features.learn_copies(UNIT, steps=1)
    with pytest.warns(UserWarning, match=r"planted copies: all values lie in \[0, 1\]"):
        features.planted(UNIT, torch.Generator().manual_seed(0))
    for make in (features.learn_copies, lambda x: features.classifier(x, torch.arange(40) % 2)):
        with pytest.raises(Refused, match="images of floats"):
            make(LEVELS)


def test_the_clean_resize_does_not_overshoot():
    """Bicubic curves do at edges: a network that is trained on 0 to 255 saw -67 to 291."""
    image = torch.ones(1, 1, 8, 8)
    image[..., ::2, ::2] = -1
    stub = Stub()
    features.Inception(stub, resize="clean").embed(image)
    levels = Image.fromarray((image[0, 0].numpy() + 1) * 127.5)
    want = np.asarray(levels.resize((299, 299), Image.Resampling.BICUBIC))
    assert want.min() < -60 and want.max() > 290
    torch.testing.assert_close(stub.seen[0, 0], torch.from_numpy(want.clip(0, 255)), atol=1e-3, rtol=0)
    assert (stub.seen.min(), stub.seen.max()) == (0, 255)


@pytest.mark.parametrize("size", [3, 8, 17])
def test_no_other_resize_leaves_the_range(embedders, size, tmp_path):
    """Siblings: CLIP's bicubic and the Lanczos of `data` are clipped; SSCD's bilinear and moved copies cannot."""
    from memlib.features._clip import _square
    from memlib.features._sscd import interpolate

    stripes = torch.ones(1, 3, 16, 16)
    stripes[..., ::2, ::2] = -1
    assert _square(stripes, size).abs().max() <= 1
    assert interpolate(stripes, (size, size), mode="bilinear", antialias=True).abs().max() <= 1
    for kind in features.planted(stripes, torch.Generator().manual_seed(0)).values():
        assert kind.abs().max() <= 1
    Image.fromarray(((stripes[0, 0].numpy() + 1) * 127.5).astype(np.uint8)).save(tmp_path / "x.png")
    loaded = data.load(f"folder:{tmp_path}", size).images
    assert loaded.abs().max() <= 1


def test_planted_mixtures_do_not_depend_on_the_order():
    """The image that is mixed in is any other one, not the next: neighbours of an ordered set are alike."""
    ordered = IMAGES.sort(0).values
    mixed = features.planted(ordered, torch.Generator().manual_seed(0))["mixed"]
    partner = ((mixed - 0.75 * ordered) / 0.25).flatten(1)
    distance = torch.cdist(partner, ordered.flatten(1))
    at = distance.argmin(1)
    assert distance.amin(1).max() < 0.05 and at.sort().values.tolist() == list(range(40))
    assert (at != torch.arange(40)).all() and ((at - torch.arange(40)).abs() > 1).float().mean() > 0.8


def test_a_classifier_judges_each_image_alone():
    net = features.ClassifierFeatures(1, 8, 2)
    with pytest.raises(Refused, match=r"in training mode, where images change each other's answers: call .eval\(\)"):
        net.probabilities(IMAGES)
    net.eval()
    torch.testing.assert_close(net.embed(IMAGES)[3:4], net.embed(IMAGES[3:4]))


def test_labels_that_a_classifier_cannot_have():
    labels = torch.arange(40) % 2
    net = features.classifier(IMAGES, labels.tolist(), steps=1)
    with pytest.raises(Refused, match="labels are whole numbers, not 0.5"):
        features.classifier(IMAGES, labels / 2)
    for wrong, said in (
        (labels + 5, "0 to 1, and none is 6"),
        (labels[:9], "40 images need a label each"),
        (labels - 1, "-1"),
    ):
        with pytest.raises(Refused, match=said):
            features.held_out(net, IMAGES, wrong)
    assert features.held_out(net, IMAGES.numpy(), labels.numpy()) == features.held_out(net, IMAGES, labels)
