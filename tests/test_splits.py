"""Copies of one image stand in one part, so that what a model memorized cannot set the threshold it is judged by."""

import re
import shutil
import time
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from scipy.sparse.csgraph import connected_components

from memlib import analytic, data, features, metrics, noise, sample
from memlib.errors import Refused

PAGE = (Path(__file__).parents[1] / "book" / "howto-library.md").read_text(encoding="utf8")


def write_digits(folder, count=None, twice=False):
    """The digits as PNG, 0.png, 1.png ...; twice: each also as 0_copy.png ..."""
    images = ((data.load("digits").images[:count, 0] + 1) * 127.5).round().to(torch.uint8).numpy()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
        if twice:
            shutil.copy(folder / f"{number}.png", folder / f"{number}_copy.png")
    return images


def photographs(n, side=24, seed=0):
    """Smooth coloured pictures, (n, side, side, 3) in 0..255."""
    numbers = numpy.random.default_rng(seed)
    light, tint = numbers.integers(30, 226, (n, 5, 5, 1)), numbers.integers(-30, 30, (n, 5, 5, 3))
    coarse = (light + tint).astype(numpy.uint8)
    big = [Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC) for one in coarse]
    return numpy.stack([numpy.asarray(one) for one in big])


def apart(parts, near=0.1):
    """Whether no two parts share copies of an image."""
    named = torch.cat([torch.full((len(part),), i) for i, part in enumerate(parts.values())])
    group = data.copies(torch.cat([part.images for part in parts.values()]), near)
    return all(len(named[group == one].unique()) == 1 for one in group.unique())


def memorizer_copies(parts, held_out, count, features_of=None):
    """How many samples of the perfect memorizer copy a member, at a threshold that 1 % of held-out images reach."""
    members = parts["members"].images.double()
    embed = features_of or (lambda images: images.flatten(1))
    seen, _ = metrics.nearest(embed(parts[held_out].images.double()), embed(members))
    threshold = metrics.threshold(seen[:, 0], 0.01)
    sigmas = noise.karras(20, sigma_min=0.02, sigma_max=20)
    x = sample.start(sigmas, range(count), members.shape[1:], dtype=torch.float64)
    images = sample.ancestral(analytic.Empirical(members), x, sigmas)
    return metrics.ams(metrics.nearest(embed(images), embed(members))[0][:, 0], threshold)


# What counts as a copy.


def test_copies_are_those_of_all_pairs():
    """Against the connected components of the matrix of all distances."""
    base = torch.from_numpy(photographs(60)).permute(0, 3, 1, 2) / 127.5 - 1
    noisy = [base + level * torch.randn(base.shape, generator=torch.Generator().manual_seed(0)) for level in (0.005, 1)]
    images = torch.cat([base, noisy[0][::2], noisy[1][::3], base[::5]])
    for near in (0.0, 0.01, 0.05, 0.5):
        rows = images.flatten(1).double()
        spread = rows.std(1, correction=0)
        bound = near * torch.minimum(spread[:, None], spread)
        close = (rows[:, None] - rows).square().mean(2).sqrt() <= bound
        _, want = connected_components(close.numpy(), directed=False)
        first = {name: number for number, name in reversed(list(enumerate(want)))}
        assert data.copies(images, near).tolist() == [first[name] for name in want], near


def test_a_file_saved_again_is_a_copy_and_another_image_is_not(tmp_path):
    pictures = photographs(40)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{number:02d}.png")
        Image.fromarray(picture).save(tmp_path / f"{number:02d}_again.jpg", quality=90)
    images = data.load(tmp_path)
    assert data.copies(images.images).tolist() == [i - i % 2 for i in range(80)]
    assert data.copies(images.images, 0).tolist() == list(range(80))
    for source, size in (("digits", None), ("faces", 16)):  # so the parts of these sets are what they were
        assert len(data.copies(data.load(source, size).images).unique()) == len(data.load(source, size))


def test_flat_and_single_pixels_are_copies_only_where_equal():
    levels = torch.linspace(-1, 1, 400)[:, None, None, None]
    assert len(data.copies(levels).unique()) == 400
    assert len(data.copies(levels.expand(-1, 1, 4, 4)).unique()) == 400
    assert data.copies(torch.zeros(5, 1, 4, 4)).tolist() == [0] * 5
    assert data.copies(torch.zeros(0, 1, 4, 4)).tolist() == []


def test_a_collapsed_set_costs_little():
    one = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = one + 1e-4 * torch.randn(3000, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    began = time.perf_counter()
    assert data.copies(images).unique().tolist() == [0]
    assert time.perf_counter() - began < 20  # half a second alone


def test_held_out_images_of_another_size_are_refused():
    small, large = (data.load("faces:n=80", size) for size in (16, 24))
    with pytest.raises(Refused, match="are 3 x 24 x 24, images of faces:n=80 are 3 x 16 x 16: give both one size"):
        data.audit_split(small, 20, others=large)


# Parts.


def test_the_planted_copies_of_the_issue():
    """digits:duplicates=60x5, 200 samples of Empirical(members), centred cosine: 200 of 200, where it was 0."""
    parts = data.audit_split(data.load("digits:duplicates=60x5"))
    assert apart(parts) and len(parts["members"]) == len(parts["non_members"]) == 299
    assert len(data.copies(parts["members"].images).unique()) < 299  # members keep their copies
    for name in ("reference", "calibration"):  # a copy is no further evidence
        assert len(data.copies(parts[name].images).unique()) == len(parts[name])
    embed = features.centred(parts["reference"].images)
    copied = memorizer_copies(parts, "calibration", 200, embed)
    assert (copied.k, copied.n) == (200, 200)


def test_the_code_of_the_page_on_a_folder_in_which_every_image_stands_twice(tmp_path, capsys):
    write_digits(tmp_path, 700, twice=True)
    sampled, scored = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)[:2]
    code = sampled.replace('data.load("digits")', f"data.load('folder:{tmp_path}')") + scored
    assert f"folder:{tmp_path}" in code
    exec(compile(code, "book/howto-library.md", "exec"), {})
    assert capsys.readouterr().out == "100 of 100 samples copy a member\n"


def test_planted_copies_in_a_split_as_in_an_audit():
    parts = data.split(data.load("digits:duplicates=50x5"), {"members": 300, "held_out": 300})
    assert apart(parts) and [len(part) for part in parts.values()] == [300, 300]
    assert memorizer_copies(parts, "held_out", 100).k == 100


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("half", ["explore", "report"])
def test_sizes_are_kept_although_groups_do_not_add_up_to_them(half, seed):
    digits = data.load("digits")
    thrice = digits[torch.arange(200).repeat(3)]
    sizes = {"train": 101, "held_out": 50, "fresh": 100}
    parts = data.split(thrice, sizes, half, seed)
    assert {name: len(part) for name, part in parts.items()} == sizes and apart(parts)
    other = data.split(thrice, sizes, "report" if half == "explore" else "explore", seed)
    assert apart({"this": parts["train"], "that": other["train"]})
    again = data.split(thrice, sizes, half, seed)
    assert all(parts[name].fingerprint == again[name].fingerprint for name in sizes)
    assert len({part["train"].fingerprint for part in (parts, data.split(thrice, sizes, half, seed + 1))}) == 2


def test_near_copies_are_dealt_at_the_stated_distance():
    base = data.load("digits").images[:200]
    spread = base.flatten(1).std(1, correction=0)[:, None, None, None]
    step = torch.tensor([1.0, -1.0]).repeat(32).reshape(8, 8)
    near = (base + 0.08 * spread * step).clamp(-1, 1)
    both = data.collect(torch.cat([base, near]), torch.zeros(400), ("",), "near copies")
    sizes = {"train": 100, "held_out": 90}
    assert apart(data.split(both, sizes)) and not apart(data.split(both, sizes, near=0.0))


def test_what_cannot_be_split_says_that_copies_are_the_cause():
    digits = data.load("digits")
    equal = digits[torch.zeros(300, dtype=torch.int64)]
    with pytest.raises(Refused, match="only 1 of its 300 images are distinct, and copies .* remove the copies"):
        data.audit_split(equal)
    with pytest.raises(Refused, match="only 1 of its 300"):
        data.split(equal, {"a": 10, "b": 10})
    few = digits[torch.arange(10).repeat(30)]
    with pytest.raises(Refused, match="only 10 of its 300"):
        data.audit_split(few)
    twice = digits[torch.arange(101).repeat(2)]  # 101 in the half, of pairs
    with pytest.raises(Refused, match="remove the copies, give more images, or ask for fewer"):
        data.split(twice, {"a": 51, "b": 50}, "explore")
    parts = data.split(twice, {"a": 51, "b": 50}, "explore", flexible="b")
    assert len(parts["a"]) == 51 and 45 < len(parts["b"]) < 50 and apart(parts)
    with pytest.raises(Refused, match=r"'a' has 0\.5 images"):
        data.split(twice, {"a": 0.5})


def test_held_out_images_that_the_model_saw_are_left_out():
    digits = data.load("digits")
    images, others = digits[:100], digits[50:1000]
    with pytest.warns(UserWarning, match="50 of 950 held-out images of digits are copies of images of digits"):
        parts = data.audit_split(images, others=others)
    assert len(parts["members"]) == 100 and apart(parts)
    with pytest.raises(Refused, match="all 100 held-out images of digits are copies"):
        data.audit_split(digits, 40, others=images)


# The form of a set.


def test_arrays_lists_and_single_positions_are_taken():
    digits = data.load("digits")
    made = data.collect(digits.images.numpy(), digits.labels.tolist(), list("0123456789"), "digits")
    assert made.fingerprint == digits.fingerprint and made.names == digits.names
    wanted = digits[torch.tensor([3, 1])].fingerprint
    assert digits[[3, 1]].fingerprint == digits[numpy.array([3, 1])].fingerprint == wanted
    assert len(digits[5]) == len(digits[-1]) == 1 and torch.equal(digits[-1].images, digits.images[-1:])
    assert len(digits[(digits.labels == 3).numpy()]) == int((digits.labels == 3).sum())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: ((x + 1) * 127.5).to(torch.uint8), "images are torch.uint8: give x / 127.5 - 1"),
        (lambda x: (x + 1) * 127.5, r"in \[-1, 1\], not in \[0, 255\]: give x / 127.5 - 1"),
        (lambda x: x * 2, r"in \[-1, 1\], not in \[-2, 2\]$"),
        (lambda x: x[0], r"images are \(N, C, H, W\)"),
    ],
)
def test_images_in_another_range_are_refused(change, words):
    digits = data.load("digits")[:20]
    with pytest.raises(Refused, match=words):
        data.collect(change(digits.images), digits.labels, digits.names, "mine")


def test_a_set_in_0_to_1_is_announced():
    digits = data.load("digits")[:20]
    with pytest.warns(UserWarning, match=r"mine: no pixel of 20 images is below 0.*give 2 x - 1"):
        data.collect((digits.images + 1) / 2, digits.labels, digits.names, "mine")
    for labels in (digits.labels + 1, digits.labels - 1, digits.labels + 0.5):
        with pytest.raises(Refused, match="labels"):
            data.collect(digits.images, labels, digits.names, "mine")
