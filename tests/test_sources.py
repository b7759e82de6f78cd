"""Sets in each official format: pixels, labels, parts, crops; and the options that every source has."""

import os
import pickle

import numpy as np
import pytest
import torch
from official_sets import (
    DIGITS,
    LABELS,
    PARTS,
    PHOTOS,
    WNIDS,
    face,
    planes,
    python_2,
    save,
    write_celeba,
    write_cifar,
    write_classes,
    write_mnist,
    write_stl,
)
from PIL import Image

from memlib import data
from memlib.data import cifar10, stl10
from memlib.errors import Refused


def levels(images):
    """Back to (N, H, W, C) in 0..255."""
    return ((images.images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


# CelebA.


def test_celeba_labels_people_attributes_and_parts(tmp_path):
    write_celeba(tmp_path)
    people = data.load(f"celeba:{tmp_path}")
    assert people.names == ("9", "10", "200") and people.labels.tolist() == [1, 0, 2, 0, 1, 0]
    np.testing.assert_array_equal(levels(people), [face(number) for number in range(6)])
    bangs = data.load(f"celeba:{tmp_path},label=Bangs")
    assert bangs.names == ("no Bangs", "Bangs") and bangs.labels.tolist() == [1, 0, 0, 1, 0, 0]
    assert torch.equal(bangs.images, people.images)
    assert data.load(f"celeba:{tmp_path},label=Smiling").labels.tolist() == [1] * 6
    for part, count in (("train", 3), ("valid", 1), ("test", 2)):
        some = data.load(f"celeba:{tmp_path},split={part}")
        kept = [i for i in range(6) if PARTS[i] == ("train", "valid", "test").index(part)]
        assert len(some) == count and torch.equal(some.images, people.images[kept])
        assert some.names == people.names and torch.equal(some.labels, people.labels[kept])


def test_celeba_as_it_is_downloaded(tmp_path):
    write_celeba(tmp_path / "flat")
    write_celeba(tmp_path / "tree", images="Img/img_align_celeba", lists="Anno", parts="Eval")
    for options in ("", ",label=Bangs", ",split=test"):
        flat, tree = (data.load(f"celeba:{tmp_path / name}{options}") for name in ("flat", "tree"))
        assert flat.fingerprint == tree.fingerprint


@pytest.mark.parametrize("options", ["", ",crop=140", ",crop=108"])
def test_celeba_at_half_size_shows_the_same_faces(tmp_path, options):
    for half in (False, True):
        write_celeba(tmp_path / str(half), half)
    whole, half = (data.load(f"celeba:{tmp_path / name}{options}", 32).images for name in ("False", "True"))
    assert whole.shape == (6, 3, 32, 32)
    torch.testing.assert_close(half, whole, atol=0.03, rtol=0)
    assert (whole[0] - whole[1]).abs().max() > 0.3  # so that a wrong crop would show


def test_celeba_crop_is_the_centre(tmp_path):
    write_celeba(tmp_path)
    got = data.load(f"celeba:{tmp_path},crop=140")
    np.testing.assert_array_equal(levels(got), [face(number)[39:179, 19:159] for number in range(6)])
    usual = data.load(f"celeba:{tmp_path}", 178)
    np.testing.assert_array_equal(levels(usual), [face(number)[20:198] for number in range(6)])
    want = Image.fromarray(face(0)[39:179, 19:159]).resize((64, 64), Image.Resampling.LANCZOS)
    got = levels(data.load(f"celeba:{tmp_path},crop=140", 64))[0]
    np.testing.assert_allclose(got, np.asarray(want, float), atol=1)  # the filter looks beyond the edge


def test_celeba_hq_identities(tmp_path):
    root = tmp_path / "CelebA_HQ_facial_identity_dataset"
    for number, name in enumerate(("train/10/a.jpg", "train/9/b.jpg", "train/10/c.jpg", "test/9/d.jpg")):
        save(root / name, PHOTOS[number])
    for place in (tmp_path, root):
        both = data.load(f"celeba:{place},subset=hq-identity")
        assert both.names == ("9", "10") and both.labels.tolist() == [0, 1, 1, 0]  # by value
        np.testing.assert_array_equal(levels(both), PHOTOS[[3, 0, 2, 1]])
        train = data.load(f"celeba:{place},subset=hq-identity,split=train")
        assert train.labels.tolist() == [1, 1, 0] and torch.equal(train.images, both.images[1:])
    assert data.load(f"celeba:{tmp_path},subset=hq-identity", 16).images.shape == (4, 3, 16, 16)


# MNIST, CIFAR-10, STL-10.


@pytest.mark.parametrize(("inside", "mark", "end"), [("", "-", ""), ("", ".", ".gz"), ("MNIST/raw", "-", ".gz")])
def test_mnist_idx(tmp_path, inside, mark, end):
    write_mnist(tmp_path / inside, mark, end)
    train, test = data.load(f"mnist:{tmp_path}"), data.load(f"mnist:{tmp_path},split=test")
    assert train.images.shape == (6, 1, 28, 28) and train.names == tuple("0123456789")
    np.testing.assert_array_equal(levels(train)[..., 0], DIGITS)
    assert train.labels.tolist() == LABELS[:6].tolist()
    assert torch.equal(test.images, train.images.flip(0)) and torch.equal(test.labels, train.labels.flip(0))


def test_mnist_archives_say_the_same(tmp_path):
    write_mnist(tmp_path / "idx")
    for name in ("parts", "keras"):
        (tmp_path / name).mkdir()
    for part, order in (("train", slice(None)), ("test", slice(None, None, -1))):
        np.savez(tmp_path / "parts" / f"{part}.npz", x=DIGITS[order], y=LABELS[:6][order])
    reversed_ = {"x_test": DIGITS[::-1], "y_test": LABELS[5::-1].astype(np.int64)}
    np.savez_compressed(tmp_path / "keras" / "mnist.npz", x_train=DIGITS, y_train=LABELS[:6], **reversed_)
    for part in ("train", "test"):
        places = ("idx", "parts", "keras", "keras/mnist.npz")
        assert len({data.load(f"mnist:{tmp_path / place},split={part}").fingerprint for place in places}) == 1


@pytest.mark.parametrize("kind", ["binary", "python 2", 2, 3, 4, 5])
def test_cifar_batches(tmp_path, kind):
    """Whoever wrote them, in whichever protocol, in the folder or one above."""
    write_cifar(tmp_path / ("cifar-10-batches-" + ("bin" if kind == "binary" else "py")), kind)
    for place in (tmp_path, next(tmp_path.iterdir())):
        train, test = data.load(f"cifar10:{place}"), data.load(f"cifar10:{place},split=test")
        np.testing.assert_array_equal(levels(train), PHOTOS)
        assert train.labels.tolist() == LABELS.tolist() and train.names == cifar10.NAMES
        np.testing.assert_array_equal(levels(test), PHOTOS[3:7])
        assert test.labels.tolist() == LABELS[3:7].tolist()


def test_the_python_2_batch_is_one():
    """The bytes written above are a pickle, with the numbers that Python's own reader finds in it."""
    batch = pickle.loads(python_2(PHOTOS[:3], LABELS[:3]), encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], planes(PHOTOS[:3]))
    assert batch[b"labels"] == LABELS[:3].tolist() and len(batch[b"filenames"]) == 3


def test_a_pickle_is_never_opened(tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "done"),)

    write_cifar(tmp_path, 2)
    bad = {"labels": [Malicious()], "data": Malicious()}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(bad, protocol=2))
    with pytest.raises(Refused, match=r"data_batch_1' has 0 labels"):
        data.load(f"cifar10:{tmp_path}")
    good = {"labels": LABELS[:2].tolist(), "data": planes(PHOTOS[:2]), "more": Malicious()}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(good, protocol=2))
    np.testing.assert_array_equal(levels(data.load(f"cifar10:{tmp_path}")), PHOTOS)  # read, yet nothing was run
    assert not (tmp_path / "done").exists()
    pickle.loads((tmp_path / "data_batch_1").read_bytes())
    assert (tmp_path / "done").exists()  # what opening it does


def test_cifar_folders_keep_the_official_labels(tmp_path):
    for part in ("train", "test"):
        write_classes(tmp_path / part, ("truck", "cat", "ship"))
    for place, options in ((tmp_path, ""), (tmp_path, ",split=test"), (tmp_path / "train", "")):
        some = data.load(f"cifar10:{place}{options}")
        assert some.names == cifar10.NAMES and some.labels.tolist() == [3, 3, 8, 8, 9, 9]
        np.testing.assert_array_equal(levels(some), PHOTOS[[2, 3, 4, 5, 0, 1]])


def test_arrays_and_files_are_resampled_alike(tmp_path):
    write_cifar(tmp_path / "bin", "binary")
    for image, label in zip(PHOTOS[3:7], LABELS[3:7], strict=True):
        save(tmp_path / "folders" / "test" / cifar10.NAMES[label] / "0.png", image)
    batches, folders = (data.load(f"cifar10:{tmp_path / name},split=test", 12) for name in ("bin", "folders"))
    order = batches.labels.argsort()
    assert batches.images.shape == (4, 3, 12, 12) and torch.equal(batches.images[order], folders.images)


def test_stl(tmp_path):
    images = write_stl(tmp_path / "stl10_binary")
    train = data.load(f"stl10:{tmp_path}")
    np.testing.assert_array_equal(levels(train), images)
    assert train.labels.tolist() == [0, 9, 2, 6] and [train.names[i] for i in (0, 9, 2, 6)] == [
        "airplane",
        "truck",
        "car",
        "horse",
    ]
    rest = data.load(f"stl10:{tmp_path / 'stl10_binary'},split=unlabeled,limit=3", 24)
    assert rest.images.shape == (3, 3, 24, 24) and rest.names == ("unlabeled",) and rest.labels.tolist() == [0, 0, 0]
    assert len(stl10.load(str(tmp_path), None, split="test", limit=2)) == 2


# ImageNet and Places365.


def test_imagenet(tmp_path):
    for part, names in (("train", WNIDS), ("val", WNIDS[1:])):
        write_classes(tmp_path / part, names)
    save(tmp_path / "val" / WNIDS[1] / "grey.JPEG", PHOTOS[0, :, :, 0])
    train, val = data.load(f"imagenet:{tmp_path}"), data.load(f"imagenet:{tmp_path},split=val")
    assert train.names == WNIDS and train.labels.tolist() == [0, 0, 1, 1]
    assert val.images.shape == (3, 3, 32, 32) and val.names == WNIDS[1:]
    assert data.load(f"imagenet:{tmp_path / 'train'}").fingerprint == train.fingerprint
    (tmp_path / "synset_words.txt").write_text(f"{WNIDS[0]} tench, Tinca tinca\n")
    assert data.load(f"imagenet:{tmp_path}").names == ("n01440764 tench, Tinca tinca", WNIDS[1])


def test_grey_imagenet_files_alone_are_still_colour(tmp_path):
    save(tmp_path / WNIDS[0] / "grey.JPEG", PHOTOS[0, :, :, 0])
    images = data.load(f"imagenet:{tmp_path}").images
    assert images.shape == (1, 3, 32, 32) and (images[:, 0] == images[:, 2]).all()


def write_many(root, counts):
    """Class folders of flat images, each of the colour that is its number in the order of the files; the ids."""
    ids = tuple(f"n{number:08d}" for number in range(len(counts)))
    for number, name in enumerate(name for name, count in zip(ids, counts, strict=True) for _ in range(count)):
        save(root / name / f"{number:02d}.png", np.full((4, 4, 3), number, np.uint8))
    return ids


def chosen(source):
    images = data.load(source)
    return images, levels(images)[:, 0, 0, 0].tolist()


def test_imagenet_by_classes_and_images_a_class(tmp_path):
    ids = write_many(tmp_path, (7, 5, 6, 4))
    homes = [0] * 7 + [1] * 5 + [2] * 6 + [3] * 4
    first, numbers = chosen(f"imagenet:{tmp_path},classes=3")
    assert first.names == ids[:3] and numbers == list(range(18)) and first.labels.tolist() == homes[:18]

    three, numbers = chosen(f"imagenet:{tmp_path},per_class=3,seed=5")
    assert three.names == ids and three.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert numbers == sorted(set(numbers)) and [homes[n] for n in numbers] == three.labels.tolist()
    two, fewer = chosen(f"imagenet:{tmp_path},classes=2,per_class=3,seed=5")
    assert two.names == ids[:2] and fewer == numbers[:6]  # the same, however many classes
    assert set(chosen(f"imagenet:{tmp_path},per_class=2,seed=5")[1]) < set(numbers)
    one, single = chosen(f"imagenet:{tmp_path},classes=2,per_class=3,limit=1,seed=5")
    assert len(one) == 1 and single[0] in fewer and one.names == ids[:2]


def test_each_seed_and_each_class_has_a_draw_of_its_own(tmp_path):
    write_many(tmp_path, (6, 6))
    draws = [chosen(f"imagenet:{tmp_path},per_class=3,seed={seed}")[1] for seed in range(6)]
    assert len({tuple(numbers) for numbers in draws}) > 3
    assert any(numbers[:3] != [number - 6 for number in numbers[3:]] for numbers in draws)


def test_imagenet_opens_only_what_was_chosen(tmp_path):
    write_many(tmp_path, (5, 5, 5))
    source = f"imagenet:{tmp_path},classes=2,per_class=2,seed=3"
    some, kept = chosen(source)
    for number, path in enumerate(sorted(tmp_path.rglob("*.png"))):
        if number not in kept:
            path.write_bytes(b"")
    assert len(kept) == 4 and data.load(source).fingerprint == some.fingerprint


def test_places_in_both_layouts(tmp_path):
    write_classes(tmp_path / "places365_standard" / "train", ("abbey", "apartment_building-outdoor", "zoo"))
    write_classes(tmp_path / "data_256", ("a/abbey", "a/apartment_building/outdoor", "z/zoo"))
    flat, letters = data.load(f"places365:{tmp_path}"), data.load(f"places365:{tmp_path / 'data_256'}")
    assert flat.names == letters.names == ("abbey", "apartment_building-outdoor", "zoo")
    assert flat.fingerprint == letters.fingerprint and flat.labels.tolist() == [0, 0, 1, 1, 2, 2]


# Options of every source.


def test_a_limit_opens_only_the_files_it_draws(tmp_path):
    write_classes(tmp_path, ("a", "b", "c", "d", "e"))
    whole = data.load(f"folder:{tmp_path}")
    assert len(data.load(f"folder:{tmp_path},limit=10")) == 10
    some = data.load(f"folder:{tmp_path},limit=4,seed=5")
    chosen = [next(i for i in range(10) if torch.equal(whole.images[i], image)) for image in some.images]
    assert chosen == sorted(chosen) and some.names == whole.names and torch.equal(some.labels, whole.labels[chosen])
    others = {tuple(data.load(f"folder:{tmp_path},limit=4,seed={seed}").labels.tolist()) for seed in range(8)}
    assert len(others) > 3
    fewer = data.load(f"folder:{tmp_path},limit=2,seed=5")
    assert all(any(torch.equal(image, other) for other in some.images) for image in fewer.images)
    for i, path in enumerate(sorted(tmp_path.rglob("*.JPEG"))):
        if i not in chosen:
            path.write_bytes(b"")
    assert data.load(f"folder:{tmp_path},limit=4,seed=5").fingerprint == some.fingerprint


@pytest.mark.parametrize("kind", ["celeba", "mnist", "cifar10", "stl10", "imagenet", "places365", "folder", "digits"])
def test_every_source_has_the_common_options(tmp_path, kind):
    write_celeba(tmp_path / "celeba")
    write_mnist(tmp_path / "mnist")
    write_cifar(tmp_path / "cifar10", "binary")
    write_stl(tmp_path / "stl10")
    for name in ("imagenet", "places365", "folder"):
        write_classes(tmp_path / name, WNIDS)
    place = "" if kind == "digits" else f"{tmp_path / kind},"
    plain = data.load(f"{kind}:{place}limit=3,seed=1")
    assert len(plain) == 3 and plain.source == f"{kind}:{place}limit=3,seed=1"
    planted = data.load(f"{kind}:{place}limit=3,duplicates=2x4,seed=1")
    same, origin = data.plant_duplicates(plain, 2, 4, seed=1)
    assert len(planted) == 11 and planted.fingerprint == same.fingerprint and planted.source.endswith("2x4,seed=1")
    copies = origin[3:]
    assert copies.unique(return_counts=True)[1].tolist() == [4, 4]
    assert torch.equal(planted.images[3:], plain.images[copies])
    assert torch.equal(planted.labels[3:], plain.labels[copies])
    size = None if kind == "digits" else 16
    small = data.load(f"{kind}:{place}limit=3,seed=1", size)
    assert small.images.shape[0] == 3 and small.images.shape[2:] == ((8, 8) if kind == "digits" else (16, 16))
    assert torch.equal(small.labels, plain.labels)


def test_places_may_hold_commas_and_signs(tmp_path):
    for name in ("me, you", "lr=0.1,batch=3", "x,limit"):
        save(tmp_path / name / "a.png", PHOTOS[0])
        assert len(data.load(f"folder:{tmp_path / name},limit=1,seed=2")) == 1


@pytest.mark.parametrize("kind", ["folder", "celeba"])
def test_broken_images_are_left_out_only_if_asked_and_counted(tmp_path, kind):
    write_celeba(tmp_path)
    place = tmp_path if kind == "celeba" else tmp_path / "img_align_celeba"
    whole = data.load(f"{kind}:{place}")
    assert whole.skipped == 0
    broken = tmp_path / "img_align_celeba" / "000003.jpg"
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(Refused, match="skip_broken=yes"):
        data.load(f"{kind}:{place}")
    with pytest.warns(UserWarning, match=r"left out 1 of 6 images.*'000003\.jpg'") as said:
        rest = data.load(f"{kind}:{place},skip_broken=yes")
    assert said[0].filename == __file__  # the line that asked
    assert len(rest) == 5 and rest.skipped == 1 and rest[:2].skipped == 1
    kept = [0, 1, 3, 4, 5]
    assert torch.equal(rest.images, whole.images[kept]) and torch.equal(rest.labels, whole.labels[kept])
    if kind == "celeba":
        (tmp_path / "img_align_celeba" / "000001.jpg").unlink()
        with pytest.warns(UserWarning, match="left out"):
            assert data.load(f"{kind}:{place},skip_broken=yes").skipped == 2


def test_whole_numbers_may_be_written_with_an_exponent():
    assert data.load("digits:limit=1e2").fingerprint == data.load("digits:limit=100").fingerprint
    assert len(data.load("faces:n=1.2e1,seed=1E+1", 16)) == 12
    for wrong in ("1.5", "1e-2", "1.25e1", "1e999", "e3"):
        with pytest.raises(Refused, match="give a whole number from 0"):
            data.load(f"digits:limit={wrong}")
