"""STL-10 (Coates et al. 2011) in its official binary files."""

from pathlib import Path

import numpy
import torch

from memlib.data.files import located, resampled
from memlib.data.images import Images, collect, subset
from memlib.errors import Refused

_NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
_PIXELS = 3 * 96 * 96


def load(place: str, size: int | None, *, split: str = "train", limit: int | None = None, seed: int = 0) -> Images:
    """Photographs, (N, 3, 96, 96) or (N, 3, size, size): 5,000 for training, 8,000 in test, 100,000 in unlabeled.

    `place` is or holds stl10_binary, with train_X.bin, train_y.bin and so on. The unlabelled part has a single label.
    Only the images that `limit` and `seed` choose are read.

    Raises:
        Refused: for another split, for missing files, and for files that do not match each other.
    """
    if split not in ("train", "test", "unlabeled"):
        raise Refused(f"STL-10 has no split {split!r}: give train, test or unlabeled")
    root = located(place, "stl10")
    root = root / "stl10_binary" if (root / "stl10_binary").is_dir() else root
    content = _bytes(path := root / f"{split}_X.bin")
    if not content.size or content.size % _PIXELS:
        raise Refused(
            f"{str(path)!r} has {content.size} bytes, not a multiple of {_PIXELS}, which an image takes: "
            "download it again"
        )
    images = content.reshape(-1, 3, 96, 96)  # column by column: the last axis runs down
    if split == "unlabeled":
        names, labels = ("unlabeled",), numpy.ones(len(images), numpy.uint8)
    else:
        names, labels = _NAMES, numpy.asarray(_bytes(path := root / f"{split}_y.bin"))
        if len(labels) != len(images):
            raise Refused(f"{str(path)!r} has {len(labels)} labels for {len(images)} images: download it again")
        if labels.min() < 1 or labels.max() > 10:
            wrong = labels.min() if labels.min() < 1 else labels.max()
            raise Refused(f"{str(path)!r} has the label {wrong}, outside 1..10: download it again")
    chosen = subset(len(images), limit, seed)
    pixels = resampled(images[chosen.numpy()].transpose(0, 3, 2, 1), size)
    return collect(pixels, torch.from_numpy(labels.astype(numpy.int64))[chosen] - 1, names, f"stl10:{place}")


def _bytes(path: Path) -> numpy.ndarray:
    if not path.is_file():
        raise Refused(f"there is no {path.name!r} in {str(path.parent)!r}: give stl10:PATH with the folder that has it")
    return numpy.memmap(path, numpy.uint8, "r") if path.stat().st_size else numpy.zeros(0, numpy.uint8)
