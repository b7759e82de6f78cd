"""Tiny sets in the format of each official one, for the tests of sources."""

import gzip
import pickle
import struct

import numpy as np
from PIL import Image

NUMBERS = np.random.default_rng(0)
DIGITS = NUMBERS.integers(0, 256, (6, 28, 28), dtype=np.uint8)
PHOTOS = NUMBERS.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 0, 8], np.uint8)
WNIDS = ("n01440764", "n01443537")


def save(path, array):
    """An image, lossless whatever the ending, since Pillow goes by the content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, format="PNG")


def face(number, half=False):
    """Smooth, so that half the size loses nothing: every person has a place of light."""
    y, x = np.mgrid[0:218, 0:178] / 178
    spot = np.exp(-((x - 0.3 - 0.06 * number) ** 2 + (y - 0.4 - 0.06 * number) ** 2) / 0.02)
    image = Image.fromarray((255 * np.stack([spot, x, y / 1.3], 2)).astype(np.uint8))
    return np.asarray(image.resize((89, 109), Image.Resampling.BOX) if half else image)


PEOPLE, BANGS, PARTS = (10, 9, 200, 9, 10, 9), (1, -1, -1, 1, -1, -1), (0, 0, 0, 1, 2, 2)


def write_celeba(root, half=False, images="img_align_celeba", lists="", parts=""):
    for folder in (lists, parts):
        (root / folder).mkdir(parents=True, exist_ok=True)
    files = [f"{number:06}.jpg" for number in range(1, 7)]
    for number, name in enumerate(files):
        save(root / images / name, face(number, half))
    lines = {
        "identity_CelebA.txt": [f"{name} {person}" for name, person in zip(files, PEOPLE, strict=True)],
        "list_attr_celeba.txt": [
            "6",
            "Smiling Bangs Young ",
            *[f"{name}  1 {bangs:2} -1" for name, bangs in zip(files, BANGS, strict=True)],
        ],
        "list_eval_partition.txt": [f"{name} {part}" for name, part in zip(files, PARTS, strict=True)],
    }
    for name, text in lines.items():
        (root / (parts if "eval" in name else lists) / name).write_text("\n".join(text) + "\n")


def write_mnist(root, mark="-", end=""):
    root.mkdir(parents=True, exist_ok=True)
    for part, images in (("train", DIGITS), ("t10k", DIGITS[::-1])):
        labels = LABELS[:6] if part == "train" else LABELS[5::-1]
        for what, array in (("images", images), ("labels", labels)):
            content = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()
            path = root / f"{part}-{what}{mark}idx{array.ndim}-ubyte{end}"
            path.write_bytes(gzip.compress(content) if end else content)


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def python_2(images, labels):
    """A batch as Python 2 pickled it: bytes as strings, the pixels within an array's reconstruction."""
    text = planes(images).tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04(K\x01"
        + b"K"
        + bytes([len(labels)])
        + b"M\x00\x0c\x86cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<I", len(text))
        + text
        + b"tb"
    )
    listed = b"]q\x06(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    names = b"]q\x07(" + b"".join(b"U\x05a.png" for _ in labels) + b"e"
    return (
        b"\x80\x02}q\x01(U\x0bbatch_labelU\x15training batch 1 of 5U\x06labels"
        + listed
        + b"U\x04data"
        + array
        + b"U\x09filenames"
        + names
        + b"u."
    )


def write_cifar(root, kind):
    for number in range(1, 7):
        chosen = slice(2 * (number - 1), 2 * number) if number < 6 else slice(3, 7)
        name, images, labels = f"data_batch_{number}" if number < 6 else "test_batch", PHOTOS[chosen], LABELS[chosen]
        root.mkdir(parents=True, exist_ok=True)
        if kind == "binary":
            rows = np.concatenate((labels[:, None], planes(images)), 1)
            (root / f"{name}.bin").write_bytes(rows.tobytes())
        elif kind == "python 2":
            (root / name).write_bytes(python_2(images, labels))
        else:
            batch = {"labels": labels.tolist(), "data": planes(images), "filenames": ["a.png"] * len(labels)}
            (root / name).write_bytes(pickle.dumps(batch, protocol=kind))


def write_stl(root):
    root.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(1).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    for part in ("train", "test", "unlabeled"):
        columns_first = [np.asfortranarray(image).ravel("F") for image in images]  # as MATLAB lays it out
        (root / f"{part}_X.bin").write_bytes(np.concatenate(columns_first).tobytes())
        if part != "unlabeled":
            (root / f"{part}_y.bin").write_bytes(bytes([1, 10, 3, 7]))
    return images


def write_classes(root, classes, count=2):
    for number, name in enumerate(classes):
        for i in range(count):
            save(root / name / f"{i}.JPEG", PHOTOS[2 * number + i])
