"""Files that load sideways, dim or not at all: what is put right, and what is counted and named instead."""

import itertools
import os
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch
from official_sets import DIGITS, LABELS, PHOTOS, write_mnist
from PIL import Image
from torch.utils.data import DataLoader

from memlib import data
from memlib.data import _decoding, folder, mnist
from memlib.errors import Refused


def levels(images):
    """Back to (N, H, W, C) in 0..255."""
    return ((images.images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def told(source, *words):
    """The images of a source, which must be read with exactly one warning, that has all the words."""
    with pytest.warns(UserWarning) as caught:
        images = data.load(source)
    (sentence,) = [str(one.message) for one in caught]
    assert all(word in sentence for word in words) and "\n" not in sentence, sentence
    assert all(one.filename == __file__ for one in caught)  # it points at the caller of load
    return images


def silent(source):
    """The images of a source, which must be read without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return data.load(source)


def write(root, *names):
    """A picture under each name, lossless, since Pillow goes by the content."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PHOTOS[number % len(PHOTOS)]).save(root / name, format="PNG")


# Links, and kinds that are passed over.


def test_links_that_lead_nowhere_are_counted(tmp_path):
    write(tmp_path, *[f"{number}.png" for number in range(5)])
    for number in range(15):
        (tmp_path / f"link{number:02d}.png").symlink_to(tmp_path / "gone" / f"{number}.png")
    assert len(told(f"folder:{tmp_path}", "passed over 15 links that lead nowhere ('link00.png')")) == 5
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    assert len(told(f"folder:{tmp_path}", "passed over 16 links that lead nowhere")) == 5


def test_kinds_that_are_not_read_are_counted(tmp_path):
    write(tmp_path, "a.png", "b.jpg", "c.gif", "d.tiff", "e.jfif", "f")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "LICENSE").write_text("no image")
    assert len(told(tmp_path, "passed over 4 files of kinds that are not read ('c.gif')")) == 2
    for name in "ab":
        next(tmp_path.glob(f"{name}.*")).unlink()
    with pytest.raises(
        Refused, match=r"holds no image: .*; passed over 4 files of kinds that are not read \('c.gif'\)"
    ):
        data.load(tmp_path)


def test_a_folder_is_read_once(tmp_path):
    """`ln -s . images/zz` made every image count twice."""
    write(tmp_path, "images/a.png", "images/b.png")
    (tmp_path / "images" / "zz").symlink_to(tmp_path / "images")
    assert len(told(tmp_path / "images", "passed over 1 link to a folder that is read anyway ('zz')")) == 2
    (tmp_path / "images" / "up").symlink_to("..")
    assert len(told(tmp_path / "images", "passed over 2 links to folders that are read anyway ('up')")) == 2


def test_links_to_folders_elsewhere_are_followed_at_every_depth(tmp_path):
    write(tmp_path, "store/a.png", "store/deep/b.png", "set/cat/c.png", "set/dog/d.png")
    (tmp_path / "store" / "back").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "cat" / "more").symlink_to(tmp_path / "store")
    (tmp_path / "set" / "bird").symlink_to(tmp_path / "store" / "deep")  # read as its own class, by either name once
    images = told(tmp_path / "set", "passed over 2 links to folders that are read anyway")
    assert len(images) == 4 and len(set(levels(images).reshape(4, -1).sum(1).tolist())) == 4
    linked = tmp_path / "linked.png"
    linked.symlink_to(tmp_path / "store" / "a.png")
    assert folder.classes(tmp_path / "store" / "deep")[0] == ["b.png"]


def test_a_class_of_which_nothing_is_read_says_why(tmp_path):
    write(tmp_path, "cat/a.png", "dog/b.gif")
    with pytest.raises(Refused, match=r"dog' holds no image of its class: .*; passed over 1 file of a kind that"):
        data.load(tmp_path)


# Labels.


def test_folders_named_by_numbers_are_labelled_in_their_order(tmp_path):
    write(tmp_path, *[f"{number}/x.png" for number in range(10)])
    shutil.copytree(tmp_path / "0", tmp_path / "10")
    shutil.copytree(tmp_path / "1", tmp_path / "11")
    images = silent(tmp_path)
    assert images.names == tuple(map(str, range(12)))
    assert sorted(images.labels.tolist()) == list(range(12))
    for label, picture in zip(images.labels.tolist(), levels(images), strict=True):
        np.testing.assert_array_equal(picture, PHOTOS[label % 10])
    (tmp_path / "11").rename(tmp_path / "eleven")
    assert silent(tmp_path).names[:3] == ("0", "1", "10")  # names in the order of the alphabet


def test_parts_of_a_set_are_no_classes(tmp_path):
    write(tmp_path, "train/cat/a.png", "train/dog/b.png", "val/cat/c.png")
    images = told(tmp_path, "the labels of", "are train, val, which are parts of a set", f"folder:PATH{os.sep}train")
    assert images.names == ("train", "val")
    assert silent(f"folder:{tmp_path}/train").names == ("cat", "dog")
    shutil.rmtree(tmp_path / "val")
    told(tmp_path, "are train, which are parts of a set")


# Sideways.


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_every_orientation_is_applied(tmp_path, orientation, kind):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8], upright[:8, 16:], upright[8:, :8] = 250, 170, 90  # corners that tell all eight apart
    stored = {  # how a camera that was held so stores it: EXIF 2.3, tag 274
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: upright.T[::-1], 7: upright.T[::-1, ::-1], 8: upright.T[:, ::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "webp" else {"quality": 100} if kind == "jpg" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a.{kind}", exif=exif, **options)
    np.testing.assert_allclose(levels(silent(tmp_path))[0, :, :, 0], upright, atol=4)


def ones(n=40, seed=0):
    """Upright strokes, (n, 28, 28), somewhat slanted, as handwritten ones are."""
    numbers, images = np.random.default_rng(seed), np.zeros((n, 28, 28), np.uint8)
    for image, slant, left in zip(images, numbers.uniform(-0.3, 0.3, n), numbers.integers(9, 17, n), strict=True):
        for row in range(4, 24):
            column = int(left + slant * (row - 14))
            image[row, column : column + 3] = 255
    return images


def test_mnist_that_lies_on_its_side(tmp_path):
    images, labels = ones(), np.ones(40, np.uint8)
    np.savez(tmp_path / "train.npz", x=images, y=labels)
    upright = silent(f"mnist:{tmp_path}")
    np.savez(tmp_path / "train.npz", x=images.transpose(0, 2, 1), y=labels)
    sideways = told(f"mnist:{tmp_path}", "the ones of 40 images lie on their side", "give transposed=yes")
    assert not np.array_equal(levels(sideways), levels(upright))
    assert silent(f"mnist:{tmp_path},transposed=yes").fingerprint == upright.fingerprint
    assert silent(f"mnist:{tmp_path},transposed=no").fingerprint == sideways.fingerprint
    assert not mnist._sideways(DIGITS, LABELS[:6])  # noise has no way up


def test_emnist_is_turned_upright_by_its_name(tmp_path):
    write_mnist(tmp_path)
    want = {part: silent(f"mnist:{tmp_path},split={part}") for part in ("train", "test")}
    for path in list(tmp_path.iterdir()):
        part, rest = path.name.split("-", 1)
        content = path.read_bytes()
        if "images" in rest:
            content = (
                content[:16] + np.frombuffer(content[16:], np.uint8).reshape(-1, 28, 28).transpose(0, 2, 1).tobytes()
            )
        path.with_name(f"emnist-digits-{'test' if part == 't10k' else part}-{rest}").write_bytes(content)
        path.unlink()
    for part in ("train", "test"):
        assert silent(f"mnist:{tmp_path},split={part}").fingerprint == want[part].fingerprint


# Dim.


@pytest.mark.parametrize(("bits", "used"), [(12, 12), (10, 10), (8, 8)])
def test_files_of_16_bits_that_use_few_are_announced(tmp_path, bits, used):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * ((2**bits - 1) // 63)
    values[-1, -1] = 2**bits - 1
    for name in "ab":
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    Image.fromarray(PHOTOS[0, :8, :8, 0]).save(tmp_path / "c.png")  # of 8 bits
    dark = told(tmp_path, "2 of 3 files have 16 bits, as 'a.png'", f"at most {used} of them", f"give bits={used}")
    assert levels(dark)[0].max() < 16
    bright = silent(f"folder:{tmp_path},bits={bits}")
    np.testing.assert_allclose(levels(bright)[0, ..., 0], values * (255 / (2**bits - 1)), atol=0.51)
    np.testing.assert_array_equal(levels(bright)[2], levels(dark)[2])
    Image.fromarray(np.full((8, 8), 60_000, np.uint16)).save(tmp_path / "d.png")
    silent(tmp_path)  # one of them fills the range, so the others are dark on purpose


def test_a_wrong_number_of_bits_is_refused(tmp_path):
    write(tmp_path, "a.png")
    for bits in (0, 17):
        with pytest.raises(Refused, match=f"bits = {bits} of 16 cannot hold an image"):
            data.load(f"folder:{tmp_path},bits={bits}")


# Several frames.


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_files_of_several_frames_are_announced(tmp_path, kind):
    frames = [Image.fromarray(one) for one in PHOTOS[:3]]
    for name in "ab":
        frames[0].save(tmp_path / f"{name}.{kind}", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / "c.png")
    images = told(tmp_path, "2 of 3 files have several frames, of which the first is read", f"'a.{kind}'")
    np.testing.assert_array_equal(levels(images)[0], PHOTOS[0])


def test_warnings_of_all_kinds_come_together(tmp_path):
    """Each in its own sentence."""
    write(tmp_path, "a.png", "b.gif")
    frames = [Image.fromarray(one) for one in PHOTOS[:2]]
    frames[0].save(tmp_path / "c.png", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning) as caught:
        data.load(tmp_path)
    sentences = [str(one.message) for one in caught]
    assert len(sentences) == 2
    for words in ("passed over 1 file", "1 of 2 files have several frames"):
        assert any(words in one for one in sentences)
    assert not any(one == other for one, other in itertools.combinations(sentences, 2))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere one process reads")
def test_several_processes_read_what_one_reads(tmp_path, monkeypatch):
    write(tmp_path, *(f"{k:03}.png" for k in range(100)))
    (tmp_path / "041.png").write_bytes(b"no image")
    (tmp_path / "077.png").write_bytes(b"")
    place = f"folder:{tmp_path},skip_broken=yes"
    one = told(place, "left out 2 of 100", "041.png")
    started = []

    def loader(*given, **options):
        started.append(options["num_workers"])
        return DataLoader(*given, **options)

    monkeypatch.setattr(_decoding, "DataLoader", loader)
    monkeypatch.setattr(_decoding, "_WHOLE_PROCESS", 50)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        two = told(place, "left out 2 of 100", "041.png")
        with pytest.raises(Refused, match="041.png' cannot be read"):
            data.load(f"folder:{tmp_path}")
    finally:
        torch.set_num_threads(threads)
    assert started == [2, 2] and two.fingerprint == one.fingerprint and len(two) == 98


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_tiff_under_a_wrong_name_is_turned_with_its_pixels(mode, orientation, tmp_path):
    """Pillow 13 maps such a file into memory if it knows its name, and turns its size alone."""
    stored, exif = PHOTOS[0][:20, :, 0], Image.Exif()
    exif[0x0112] = orientation
    frames = [Image.fromarray(stored).convert(mode)] * 3
    frames[0].save(tmp_path / "a.png", format="TIFF", save_all=True, append_images=frames[1:], exif=exif)
    upright = np.rot90(stored, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    with pytest.warns(UserWarning, match="several frames"):
        found = levels(data.load(tmp_path))
    np.testing.assert_array_equal(found[0, ..., 0], upright)
