"""Sources in one form, from files written here; what a user may do wrong, said with the file's name; splits."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from memlib import data
from memlib.data import options
from memlib.errors import Refused

PAGE = (Path(__file__).parents[1] / "book" / "howto-images.md").read_text(encoding="utf8")


def picture(seed, high=12, wide=12, colour=True):
    shape = (high, wide, 3) if colour else (high, wide)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def pets(tmp_path):
    """Two classes, the second first on disk; lossless, so that bytes can be compared."""
    for name, seeds in (("dogs", (3, 4)), ("cats", (0, 1, 2))):
        (tmp_path / name).mkdir()
        for seed in seeds:
            Image.fromarray(picture(seed)).save(tmp_path / name / f"{seed}.png")
    return tmp_path


def test_digits():
    digits = data.load("digits")
    assert digits.images.shape == (1797, 1, 8, 8) and digits.images.dtype == torch.float32 and len(digits) == 1797
    assert digits.images.min() == -1 and digits.images.max() == 1 and digits.source == "digits"
    assert digits.labels.dtype == torch.int64 and digits.names == tuple("0123456789")
    images, labels = load_digits(return_X_y=True)
    np.testing.assert_array_equal((digits.images.flatten(1).numpy() + 1) * 8, images)
    assert digits.labels.tolist() == labels.tolist()


def test_folder_takes_labels_from_subfolders_in_sorted_order(pets):
    images = data.load(f"folder:{pets}")
    assert images.names == ("cats", "dogs") and images.labels.tolist() == [0, 0, 0, 1, 1]
    want = np.stack([picture(seed) for seed in range(5)]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose((images.images.numpy() + 1) * 127.5, want, atol=1e-4)
    assert images.images.abs().max() == 1  # some pixel is 0 or 255


def test_a_flat_folder_is_one_class_and_files_come_in_order(tmp_path):
    for name, level in (("b.png", 255), ("a.PNG", 0), ("c.bmp", 51)):
        Image.new("L", (4, 6), level).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "d.png").write_text("no image either")
    images = data.load(f"folder:{tmp_path}")
    assert images.names == ("",) and images.labels.tolist() == [0, 0, 0]
    assert images.images.shape == (3, 1, 6, 4)
    assert images.images[:, 0, 0, 0].tolist() == pytest.approx([-1, 1, -0.6])


def test_home_is_understood(pets, monkeypatch):
    monkeypatch.setenv("HOME", str(pets.parent))
    assert data.load(f"folder:~/{pets.name}").fingerprint == data.load(f"folder:{pets}").fingerprint


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "bmp"])
def test_every_kind_is_read(tmp_path, suffix):
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / f"x.{suffix}")
    got = (data.load(f"folder:{tmp_path}").images[0].mean((1, 2)) + 1) * 127.5
    assert got.tolist() == pytest.approx([200, 100, 50], abs=4)


def test_one_coloured_file_makes_all_rgb(tmp_path):
    Image.fromarray(picture(0, colour=False)).save(tmp_path / "a.png")
    assert data.load(f"folder:{tmp_path}").images.shape == (1, 1, 12, 12)
    Image.fromarray(picture(1)).save(tmp_path / "b.png")
    both = data.load(f"folder:{tmp_path}").images
    assert both.shape == (2, 3, 12, 12) and (both[0] == both[0, :1]).all() and not (both[1] == both[1, :1]).all()


def test_transparency_16_bits_and_orientation(tmp_path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (data.load(f"folder:{tmp_path}").images == 1).all()  # nothing, over white
    Image.fromarray(np.full((2, 2), 257 * 51, np.uint16)).save(tmp_path / "a.png")
    assert data.load(f"folder:{tmp_path}").images.unique().item() == pytest.approx(-0.6)
    (tmp_path / "a.png").unlink()
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera stood on its side
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=turned)
    assert data.load(f"folder:{tmp_path}").images.shape == (1, 3, 4, 2)


def test_size_cuts_the_centre_and_averages(tmp_path):
    wide = np.zeros((64, 192), np.uint8)
    wide[:, 64:128] = np.indices((64, 64)).sum(0) % 2 * 255  # a chessboard in the central square, black beside it
    Image.fromarray(wide).save(tmp_path / "a.png")
    image = data.load(f"folder:{tmp_path}", size=8).images
    assert image.shape == (1, 1, 8, 8) and image.abs().max() < 0.1  # grey: neither aliased nor mixed with the sides


def test_mixed_sizes_need_a_size(pets):
    Image.fromarray(picture(9, 10, 14)).save(pets / "dogs" / "wide.png")
    with pytest.raises(Refused, match=r"cats/0.png' is 12x12 and 'dogs/wide.png' is 14x10"):
        data.load(f"folder:{pets}")
    assert data.load(f"folder:{pets}", size=10).images.shape == (6, 3, 10, 10)


def test_what_a_user_may_do_wrong(pets, tmp_path):
    broken = pets / "cats" / "broken.jpg"
    Image.fromarray(picture(5, 64, 64)).save(broken)
    broken.write_bytes(broken.read_bytes()[:-900])
    with pytest.raises(Refused, match=r"broken\.jpg.*cannot be read.*truncated"):
        data.load(f"folder:{pets}", size=12)
    broken.write_bytes(b"not an image")
    with pytest.raises(Refused, match=r"broken\.jpg.*cannot be read"):
        data.load(f"folder:{pets}")
    broken.unlink()
    Image.fromarray(picture(6)).save(pets / "loose.png")
    with pytest.raises(Refused, match=r"loose\.png"):
        data.load(f"folder:{pets}")
    empty = tmp_path / "empty"
    empty.mkdir()
    for source, said in (
        ("folder:/nowhere", "no folder '/nowhere'"),
        ("folder:", "no folder ''"),
        (f"folder:{empty}", "holds no image"),
        ("digit", "no data source 'digit'.*celeba, .*digits, .*folder"),
        ("digits:3", "without ':3'"),
    ):
        with pytest.raises(Refused, match=said):
            data.load(source)
    for source in ("digits", f"folder:{pets}"):
        with pytest.raises(Refused, match="0 pixels wide|not 0"):
            data.load(source, size=0)


def test_the_fingerprint_is_of_the_content(pets, tmp_path):
    images = data.load(f"folder:{pets}")
    parts = (images.images, images.labels)
    content = b"".join(str(tuple(part.shape)).encode() + part.numpy().tobytes() for part in parts)
    assert images.fingerprint == hashlib.sha256(content).hexdigest()
    assert images[:].fingerprint == images.fingerprint == data.load(f"folder:{pets}").fingerprint
    assert images[torch.tensor([1, 0, 2, 3, 4])].fingerprint != images.fingerprint
    other = data.collect(images.images, 1 - images.labels, images.names, images.source)
    assert other.fingerprint != images.fingerprint


def test_collect_holds_a_source_to_the_form():
    for images, labels in (
        (torch.full((2, 1, 3, 3), 1.1), torch.zeros(2)),
        (torch.zeros(2, 3, 3), torch.zeros(2)),
        (torch.zeros(2, 1, 3, 3), torch.ones(2)),
        (torch.full((2, 1, 3, 3), torch.nan), torch.zeros(2)),
    ):
        with pytest.raises(ValueError, match="a source"):
            data.collect(images, labels, ("only",), "a source")


def positions(part, whole):
    """Where the images of a part stand in the whole set, by content; the digits are all different."""
    place = {image.numpy().tobytes(): index for index, image in enumerate(whole.images)}
    return [place[image.numpy().tobytes()] for image in part.images]


def test_split_is_disjoint_seeded_and_keeps_the_halves_apart():
    digits = data.load("digits")
    halves = {}
    for half, size in (("explore", 898), ("report", 899)):
        seen = []
        for seed in (0, 1):
            parts = data.split(digits, {"train": 500, "held_out": size - 500}, half, seed)
            assert [len(part) for part in parts.values()] == [500, size - 500] and list(parts) == ["train", "held_out"]
            where = [positions(part, digits) for part in parts.values()]
            assert parts["train"].labels.tolist() == digits.labels[where[0]].tolist()
            assert len({*where[0], *where[1]}) == size  # disjoint
            seen.append(where)
        assert {*seen[0][0], *seen[0][1]} == {*seen[1][0], *seen[1][1]}  # the half does not depend on the seed,
        assert set(seen[0][0]) != set(seen[1][0])  # its parts do
        halves[half] = {*seen[0][0], *seen[0][1]}
    assert halves["explore"].isdisjoint(halves["report"])
    again = data.split(digits, {"train": 500, "held_out": 399}, seed=1)
    assert positions(again["train"], digits) == seen[1][0]  # report is the default
    assert abs(len([i for i in halves["explore"] if i < 898]) - 449) < 60  # drawn from all over the set


def test_a_larger_second_part_leaves_the_first_as_it_is():
    digits = data.load("digits")
    small, large = (data.split(digits, {"train": 100, "held_out": n}) for n in (10, 500))
    assert small["train"].fingerprint == large["train"].fingerprint


def test_split_refuses():
    digits = data.load("digits")
    with pytest.raises(Refused, match="500 train . 500 held_out.*899 of 1797"):
        data.split(digits, {"train": 500, "held_out": 500})
    with pytest.raises(Refused, match="'train' has 0"):
        data.split(digits, {"train": 0})
    with pytest.raises(Refused, match="'test'"):
        data.split(digits, {"train": 1}, half="test")


def test_planted_duplicates():
    digits = data.load("digits")[:50]
    planted, origin = data.plant_duplicates(digits, 4, 3, seed=1)
    assert len(planted) == len(origin) == 62 and torch.equal(planted.images, digits.images[origin])
    assert origin[:50].tolist() == list(range(50)) and origin[50:].unique(return_counts=True)[1].tolist() == [3] * 4
    assert torch.equal(planted.labels, digits.labels[origin])
    assert not torch.equal(data.plant_duplicates(digits, 4, 3, seed=2)[1], origin)
    with pytest.raises(Refused, match="51 cannot"):
        data.plant_duplicates(digits, 51, 1)


def test_the_page_lists_every_source_with_its_options():
    rows = {row.split("`")[1].partition(":")[0]: row for row in re.findall(r"^\| `.*$", PAGE, re.M)}
    assert sorted(rows) == sorted(data.SOURCES)
    for kind, row in rows.items():
        told = {word.partition("=")[0] for word in re.findall(r"`([^`]+)`", row.split("|")[-2])}
        told -= {"test", "val", "valid", "unlabeled"}  # further values of split
        assert told == set(options.own(data.SOURCES[kind])) - {"limit", "seed"}, kind
    assert all(f"`{name}=" in PAGE for name in options.COMMON)


def test_the_code_on_the_page_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)
    assert blocks
    for block in blocks:
        exec(compile(block, "book/howto-images.md", "exec"), {})


def test_dealt_parts_are_disjoint_and_as_promised():
    digits = data.load("digits")
    parts = data.audit_split(digits, half="explore", seed=3)
    assert [len(parts[name]) for name in ("members", "non_members")] == [256, 256]
    assert len(parts["reference"]) == 128 and len(parts["calibration"]) == 258  # 898 - 512, a third and two
    few = data.audit_split(digits[torch.arange(200)])
    assert {name: len(part) for name, part in few.items()} == {
        "members": 28, "non_members": 28, "reference": 22, "calibration": 22,
    }  # fmt: skip
    numbered = data.collect(torch.linspace(-1, 1, 400)[:, None, None, None], torch.zeros(400), ("",), "test")
    drawn = torch.cat([part.images.flatten() for part in data.audit_split(numbered).values()])
    assert len(drawn.unique()) == len(drawn) == 200
    noise = 2 * torch.rand(400, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 1
    others = data.collect(noise, torch.zeros(400), ("",), "test")
    apart = data.audit_split(digits, 40, others=others)
    assert len(data.audit_split(digits[torch.arange(90)], others=others)["members"]) == 90  # all, and no half put aside
    assert len(apart["members"]) == 40 and apart["members"].source.startswith("digits")
    assert all(apart[name].source.startswith("test") for name in ("non_members", "reference", "calibration"))
    with pytest.raises(Refused, match="500 members and 500 non-members leave 0 held-out images of 1797"):
        data.audit_split(digits, 500)
