"""The files of official data sets: lists of labels, raw arrays and archives, with one file damaged."""

import functools
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy
from hypothesis import strategies as st

from faults import fuzz, spoiling
from faults.cases import ROOT
from memlib import data

sys.path.append(str(ROOT / "tests"))

import official_sets as official  # noqa: E402


def _words(root: Path) -> None:
    official.write_classes(root, official.WNIDS, 1)
    (root / "synset_words.txt").write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n")


def _archive(root: Path) -> None:
    root.mkdir(parents=True)
    numpy.savez(root / "train.npz", x=official.DIGITS, y=official.LABELS[:6])


SETS = {  # source -> what writes it, and the files that may be damaged
    "celeba:{at}": (official.write_celeba, ("identity_CelebA.txt",)),
    "celeba:{at},label=Bangs": (official.write_celeba, ("list_attr_celeba.txt",)),
    "celeba:{at},split=train": (official.write_celeba, ("list_eval_partition.txt",)),
    "imagenet:{at}": (_words, ("synset_words.txt",)),
    "mnist:{at}": (official.write_mnist, ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")),
    "mnist:{at},seed=1": (
        lambda root: official.write_mnist(root, end=".gz"),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    ),
    "mnist:{at},limit=3": (_archive, ("train.npz",)),
    "cifar10:{at}": (lambda root: official.write_cifar(root, "binary"), ("data_batch_2.bin",)),
    "cifar10:{at},limit=4": (lambda root: official.write_cifar(root, "python 2"), ("data_batch_3",)),
    "cifar10:{at},split=test": (lambda root: official.write_cifar(root, 4), ("test_batch",)),
    "stl10:{at}": (official.write_stl, ("train_X.bin", "train_y.bin")),
}


class Spoilt(NamedTuple):
    """A source, the place of the file among those that may be damaged, and what happens to it."""

    source: str
    which: int
    changes: list


def inputs() -> st.SearchStrategy[Spoilt]:
    """A set with one damaged file."""
    changes = st.lists(spoiling.CHANGES, min_size=1, max_size=3)
    return st.builds(Spoilt, st.sampled_from(sorted(SETS)), st.integers(0, 1), changes)


@functools.cache
def _template(source: str) -> Path:
    """An undamaged set, written once a process."""
    place = Path(tempfile.mkdtemp(prefix="memlib-faults-")) / "set"
    SETS[source][0](place)
    return place


def read(folder: Path, given: Spoilt) -> None:
    """The whole set."""
    names = SETS[given.source][1]
    shutil.copytree(_template(given.source), folder / "set")
    path = folder / "set" / names[given.which % len(names)]
    path.write_bytes(spoiling.changed(path.read_bytes(), given.changes))
    found = data.load(given.source.format(at=folder / "set"))
    assert len(found) and found.images.isfinite().all() and found.images.abs().max() <= 1
    assert 0 <= found.labels.min() <= found.labels.max() < len(found.names)


KINDS = {"label files and archives": fuzz.kind(inputs, read, 14)}
