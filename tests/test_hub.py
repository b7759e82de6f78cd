"""Data sets of the Hub: through a stand-in with the interface of `datasets`, and through the library where it is."""

import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from memlib import data
from memlib.errors import Refused


class Rows(list):
    """As much of a `datasets.Dataset` as is used: a list of rows with features."""

    def __init__(self, rows, features):
        super().__init__(rows)
        self.features = features

    def select_columns(self, names):
        return Rows([{name: row[name] for name in names} for row in self], self.features)


def picture(level, size=(6, 6), mode="RGB"):
    return Image.new(mode, size, (level,) * 3 if mode == "RGB" else level)


@pytest.fixture
def hub(monkeypatch):
    """A module `datasets` whose sets a test fills in: name -> {split: Rows}."""
    library = types.ModuleType("datasets")
    library.Image = type("Image", (), {})
    library.ClassLabel = type("ClassLabel", (), {"__init__": lambda self, names: setattr(self, "names", names)})
    library.Value = type("Value", (), {})
    library.sets = {}

    def load_dataset(path, *, split=None):
        if path not in library.sets:
            raise FileNotFoundError(f"Dataset '{path}' doesn't exist on the Hub or cannot be accessed.\nAnd a hint.")
        splits = library.sets[path]
        if split is not None and split not in splits:
            raise ValueError(f'Unknown split "{split}". Should be one of {list(splits)}.')
        return splits[split] if split else splits

    library.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", library)
    return library


def test_images_and_labels_are_found_among_the_columns(hub):
    features = {"id": hub.Value(), "img": hub.Image(), "fine": hub.ClassLabel(["cat", "dog"]), "label": hub.Value()}
    train = [{"id": i, "img": picture(51 * i), "fine": i % 2, "label": "no"} for i in range(3)]
    test = [{"id": 9, "img": picture(255), "fine": 1, "label": "no"}]
    hub.sets["a/pets"] = {"test": Rows(test, features), "train": Rows(train, features)}
    pets = data.load("hub:a/pets")
    assert pets.images.shape == (3, 3, 6, 6) and pets.names == ("cat", "dog") and pets.labels.tolist() == [0, 1, 0]
    assert pets.images[:, 0, 0, 0].tolist() == pytest.approx([-1, -0.6, -0.2]) and pets.source == "hub:a/pets"
    last = data.load("hub:a/pets,split=test", 3)
    assert last.images.shape == (1, 3, 3, 3) and (last.images == 1).all() and last.labels.tolist() == [1]
    assert data.load("hub:a/pets,label=label").names == ("no",)
    part = data.load("hub:a/pets,limit=2,seed=3")
    assert len(part) == 2 and all((image == pets.images).flatten(1).all(1).any() for image in part.images)


def test_plain_labels_and_none(hub):
    features = {"image": hub.Image(), "label": hub.Value()}
    rows = [{"image": picture(8, mode="L"), "label": kind} for kind in ("oak", "ash", "oak")]
    hub.sets["trees"] = {"all": Rows(rows, features)}  # the only split
    trees = data.load("hub:trees")
    assert trees.names == ("ash", "oak") and trees.labels.tolist() == [1, 0, 1] and trees.images.shape == (3, 1, 6, 6)
    hub.sets["bare"] = {"train": Rows([{"image": picture(8)}], {"image": hub.Image()})}
    assert data.load("hub:bare").names == ("",) and data.load("hub:bare").labels.tolist() == [0]


def test_what_a_user_may_do_wrong(hub):
    kinds = {"image": hub.Image(), "label": hub.ClassLabel(["a"])}
    hub.sets["two"] = {"dev": Rows([], kinds), "test": Rows([], kinds)}
    hub.sets["words"] = {"train": Rows([{"text": "no"}], {"text": hub.Value()})}
    hub.sets["secret"] = {"train": Rows([{"image": picture(1), "label": -1}], kinds)}
    mixed = [{"image": picture(1, (6, 6 + i)), "label": 0} for i in range(2)]
    hub.sets["mixed"] = {"train": Rows(mixed, kinds)}
    hub.sets["broken"] = {"train": Rows([{"image": picture(1), "label": 0}, {"image": None, "label": 0}], kinds)}
    for source, size, said in (
        ("hub:", None, "names no data set"),
        ("hub:two", 0, "0 pixels"),
        ("hub:gone", None, r"'hub:gone' cannot be loaded: Dataset 'gone' doesn't exist.*accessed; check the name"),
        ("hub:words,split=dev", None, 'Unknown split "dev"'),
        ("hub:two", None, "has no split train: give one of split=dev, split=test"),
        ("hub:two,split=dev", None, "holds no image"),
        ("hub:words", None, "no column of images among text"),
        ("hub:mixed,label=kind", None, "no column of labels 'kind': it has label"),
        ("hub:mixed,limit=3", None, "limit=3"),
        ("hub:secret", None, "image 0 of 'hub:secret' has no label"),
        ("hub:mixed", None, "the first is 6x6 and number 1 is 6x7"),
        ("hub:broken", None, "image 1 of 'hub:broken' cannot be read"),
    ):
        with pytest.raises(Refused, match=said) as caught:
            data.load(source, size)
        assert "\n" not in str(caught.value)
    assert data.load("hub:mixed", 6).images.shape == (2, 3, 6, 6)


def test_without_the_library_the_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(Refused, match="pip install datasets"):
        data.load("hub:ylecun/mnist")
    monkeypatch.delitem(sys.modules, "datasets")
    (tmp_path / "datasets").mkdir()  # a folder of that name imports as an empty package
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(Refused, match="pip install datasets"):
        data.load("hub:ylecun/mnist")
    sys.modules.pop("datasets", None)


def test_with_the_library_itself(tmp_path, monkeypatch):
    """A local folder of images, as `datasets` reads it; skipped where the library is not installed."""
    pytest.importorskip("datasets", reason="the optional library `datasets` is not installed")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for number, name in enumerate(("cats", "dogs", "dogs")):
        folder = tmp_path / "pets" / "train" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 51 * number, np.uint8)).save(folder / f"{number}.png")
    pets = data.load(f"hub:{tmp_path / 'pets'}")
    assert pets.names == ("cats", "dogs") and pets.labels.tolist() == [0, 1, 1]
    assert torch.allclose(pets.images[:, 0, 0, 0], torch.tensor([-1, -0.6, -0.2]))
    assert len(data.load(f"hub:{tmp_path / 'pets'},split=train[:2]", 4)) == 2
    for source in (f"hub:{tmp_path / 'pets'},split=test", f"hub:{tmp_path / 'nothing'}"):
        with pytest.raises(Refused, match="cannot be loaded"):
            data.load(source)


def test_orientation_and_the_order_of_numbers_are_as_in_a_folder(hub):
    turned = picture(0, (6, 4))
    turned.getexif()[0x0112] = 6  # the camera stood on its side
    rows = [{"img": turned, "label": str(number)} for number in (10, 2, 10, 0)]
    hub.sets["numbers"] = {"train": Rows(rows, {"img": hub.Image(), "label": hub.Value()})}
    images = data.load("hub:numbers")
    assert images.images.shape == (4, 3, 6, 4)
    assert images.names == ("0", "2", "10") and images.labels.tolist() == [2, 1, 2, 0]
