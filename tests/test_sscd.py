"""SSCD's surroundings, with a stand-in for its network that hands back what it was given."""

import hashlib
import pickle
import warnings

import numpy
import pytest
import torch
from PIL import Image

from memlib import assets, features
from memlib.errors import Refused


class Echo(torch.nn.Module):
    """Every pixel that reaches the network, as features."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def echo(tmp_path):
    """The stand-in as a TorchScript file."""
    path = tmp_path / "echo.torchscript.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Echo()), path)
    return path


def by_pillow(image, width, height):
    """(C, H, W) in [-1, 1] -> (3, height, width) as the authors' page says, resized by Pillow in floating point."""
    unit = (image.numpy().astype("float32") + 1) / 2
    planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR) for plane in unit]
    mean, std = numpy.array([0.485, 0.456, 0.406]), numpy.array([0.229, 0.224, 0.225])
    pixels = numpy.stack([numpy.asarray(plane) for plane in planes] * (3 // len(planes)))
    return (pixels - mean[:, None, None]) / std[:, None, None]


@pytest.mark.parametrize(
    ("shape", "size", "width", "height"),
    [
        ((3, 40, 40), 288, 288, 288),
        ((3, 700, 600), 288, 288, 336),  # shrinking, where antialiasing shows; the longer side follows
        ((1, 64, 96), 320, 480, 320),  # a grey one
    ],
)
def test_preprocessing_is_the_documented_one(echo, shape, size, width, height):
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    got = features.sscd(echo, digest(echo), size)(images).reshape(2, 3, height, width)
    for image, one in zip(images, got, strict=True):
        numpy.testing.assert_allclose(one.numpy(), by_pillow(image, width, height), atol=1e-4)


def test_batches_change_nothing_and_dtype_and_range_are_kept(echo):
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    whole, parts = (features.sscd(echo, digest(echo), 36, batch)(images) for batch in (5, 2))
    torch.testing.assert_close(whole, parts)
    assert torch.equal(whole, features.sscd(echo, digest(echo), 36)(images.clamp(-1, 1)))
    double = features.sscd(echo, digest(echo), 36)(images.double().requires_grad_())
    assert double.dtype == torch.float64 and not double.requires_grad


def test_a_file_that_is_not_the_published_one_is_refused(echo):
    with pytest.raises(Refused, match=f"{digest(echo)} and not 9f26bd4c848c"):
        features.sscd(echo)
    with pytest.raises(Refused, match="and not 00ff: download it again"):
        features.sscd(echo, "00FF")
    features.sscd(echo, digest(echo).upper())


def test_a_pickle_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('a pickle was run')",))

    path = tmp_path / "sscd_disc_mixup.classy.pt"
    torch.save({"weights": Bomb()}, path)
    with pytest.raises(Refused, match="not a TorchScript"):
        features.sscd(path, digest(path))
    for content in (pickle.dumps(Bomb()), b"", b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(Refused, match="not a TorchScript"):
            features.sscd(path, digest(path))


def test_what_is_absent_says_where_to_get_it(tmp_path, monkeypatch):
    for name in ("HOME", "TORCH_HOME", "MEMLIB_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path))
    with pytest.raises(Refused, match=r"no file .*gone.pt.*memlib doctor.*sscd_disc_mixup.*facebookresearch"):
        features.sscd(tmp_path / "gone.pt")
    with pytest.raises(Refused, match=r"no weights of SSCD here; .memlib doctor. says"):
        features.sscd()
    (tmp_path / "sscd_disc_mixup.torchscript.pt").write_bytes(b"half a download")
    with pytest.raises(Refused, match=r"15 bytes where 98,791,638 are published"):
        features.sscd()


def test_the_file_that_the_doctor_finds_is_taken(echo, tmp_path, monkeypatch):
    name = "sscd_disc_mixup.torchscript.pt"
    echo.rename(tmp_path / name)
    monkeypatch.setenv("MEMLIB_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(assets.FILES, name, assets.File(name, None, digest(tmp_path / name)))
    assert features.sscd(size=8)(torch.zeros(1, 1, 8, 8)).shape == (1, 3 * 8 * 8)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 2, 8, 8), (0, 3, 8, 8)])
def test_other_shapes_are_refused(echo, shape):
    with pytest.raises(Refused, match="1 or 3"):
        features.sscd(echo, digest(echo))(torch.zeros(shape))
