"""What a user is told when a set is damaged, incomplete or not what was said: one sentence, word by word.

`pytest -rP tests/test_bad_input.py` prints them as a table: what is wrong, the source as given, the sentence.
"""

import re

import numpy as np
import pytest
from official_sets import (
    DIGITS,
    LABELS,
    PHOTOS,
    WNIDS,
    save,
    write_celeba,
    write_cifar,
    write_classes,
    write_mnist,
    write_stl,
)
from PIL import Image

from memlib import data
from memlib.errors import Refused


def nothing(root):
    """Leaves the folder empty."""


def damaged(write, name, change):
    """Writes a set and changes the bytes of one file; None removes it."""

    def do(root):
        write(root)
        content = change((root / name).read_bytes())
        (root / name).unlink() if content is None else (root / name).write_bytes(content)

    return do


def celeba(name, change):
    """Writes CelebA and changes the lines of one list."""
    return damaged(write_celeba, name, lambda b: "\n".join(change(b.decode().splitlines())).encode())


def classes(*names, then=nothing):
    """Writes class folders and does something more."""

    def do(root):
        write_classes(root, names)
        then(root)

    return do


def archive(**arrays):
    return lambda root: np.savez(root / "train.npz", **arrays)


def write_binary(root):
    write_cifar(root, "binary")


def write_python(root):
    write_cifar(root, "python 2")


def truncated(root):
    write_classes(root, ("cat",))
    Image.fromarray(PHOTOS[0]).save(root / "cat" / "1.JPEG", quality=100)
    (root / "cat" / "1.JPEG").write_bytes((root / "cat" / "1.JPEG").read_bytes()[:-1000])


def no_image(root):
    write_classes(root, ("cat",))
    (root / "cat" / "1.JPEG").write_text("<html>not found</html>")


def none_readable(root):
    no_image(root)
    (root / "cat" / "0.JPEG").write_text("")


def no_faces(root):
    write_celeba(root)
    for path in (root / "img_align_celeba").iterdir():
        path.unlink()


def no_folder(root):
    no_faces(root)
    (root / "img_align_celeba").rmdir()


def beside(root):
    write_classes(root, ("cat",))
    save(root / "x.png", PHOTOS[0])


def other_size(root):
    write_classes(root, ("cat",))
    save(root / "cat" / "x.png", PHOTOS[0][:20])


ATTRIBUTES, IDENTITIES, PARTITION = "list_attr_celeba.txt", "identity_CelebA.txt", "list_eval_partition.txt"
IDX = "train-images-idx3-ubyte"
SKIP = "repair it, remove it, or give skip_broken=yes to leave such files out"

FOLDER = [
    (
        "missing folder",
        nothing,
        "folder:{at}/none",
        "there is no folder '{at}/none': give folder:PATH with the path of a folder of images",
    ),
    (
        "empty folder",
        nothing,
        "folder:{at}",
        "the folder '{at}' holds no image: looked for .bmp, .jpeg, .jpg, .png, .webp, also in subfolders",
    ),
    (
        "empty class folder",
        classes("cat", then=lambda root: (root / "dog").mkdir()),
        "folder:{at}",
        "the folder '{at}/dog' holds no image of its class: fill it, or remove it",
    ),
    (
        "image beside class folders",
        beside,
        "folder:{at}",
        "'{at}' has images both in subfolders and outside them, such as 'x.png': move these into a subfolder, or remove them",
    ),
    (
        "truncated JPEG",
        truncated,
        "folder:{at}",
        "'{at}/cat/1.JPEG' cannot be read as an image: image file is truncated (N bytes not processed); " + SKIP,
    ),
    (
        "no image at all",
        no_image,
        "folder:{at}",
        "'{at}/cat/1.JPEG' cannot be read as an image: it is not an image, or its format is unknown; " + SKIP,
    ),
    (
        "nothing readable, skipping",
        none_readable,
        "folder:{at},skip_broken=yes",
        "none of 2 images in '{at}' can be read, starting with 'cat/0.JPEG': give a folder of intact ones",
    ),
    (
        "mixed sizes",
        other_size,
        "folder:{at}",
        "images differ in size: 'cat/0.JPEG' is 32x32 and 'cat/x.png' is 32x20; give a size to resample them to",
    ),
]

OPTIONS = [
    (
        "unknown source",
        nothing,
        "celebra:{at}",
        "there is no data source 'celebra': give one of celeba, cifar10, digits, faces, folder, hub, imagenet, lfw, "
        "mnist, olivetti, places365, stl10, as in 'digits' or 'folder:PATH'",
    ),
    (
        "unknown option",
        nothing,
        "celeba:{at},labl=Bangs",
        "celeba has no option 'labl': give one of crop, duplicates, label, limit, seed, skip_broken, split, stored, subset",
    ),
    (
        "option twice",
        nothing,
        "mnist:{at},limit=3,limit=4",
        "'mnist:{at},limit=3,limit=4' gives the option 'limit' twice: give it once",
    ),
    (
        "option no number",
        nothing,
        "mnist:{at},limit=-3",
        "'mnist:{at},limit=-3' has limit = '-3': give a whole number from 0",
    ),
    (
        "option not yes or no",
        nothing,
        "folder:{at},skip_broken=1",
        "'folder:{at},skip_broken=1' has skip_broken = '1': give yes or no",
    ),
    ("option empty", nothing, "mnist:{at},split=", "'mnist:{at},split=' has split = '': give a value, or leave it out"),
    (
        "seed too large",
        nothing,
        "mnist:{at},seed=99999999999999999999",
        "seed = 99999999999999999999 is too large: give 0 to 2^62",
    ),
    (
        "limit too large",
        classes("cat"),
        "folder:{at},limit=25000",
        "limit=25000 cannot be drawn from 2 images: give 1 to 2, or leave limit out",
    ),
    (
        "duplicates misspelt",
        nothing,
        "mnist:{at},duplicates=10",
        "the option duplicates is IMAGESxCOPIES such as 10x5, not '10'",
    ),
    (
        "more duplicates than images",
        classes("cat"),
        "folder:{at},duplicates=10x5",
        "5 copies of 10 cannot be planted among 2 images: give fewer",
    ),
]

CELEBA = [
    ("no images", no_faces, "celeba:{at}", "'{at}/img_align_celeba' holds no image: unpack img_align_celeba.zip there"),
    (
        "no folder of images",
        no_folder,
        "celeba:{at}",
        "'{at}' has no folder 'img_align_celeba': give celeba:PATH with the folder that has it",
    ),
    (
        "no identities",
        damaged(write_celeba, IDENTITIES, lambda b: None),
        "celeba:{at}",
        "'{at}' has no identity_CelebA.txt, also not in the folders Anno/ and Eval/ of the download: put it next to the images",
    ),
    (
        "attribute list with a wrong count",
        celeba(ATTRIBUTES, lambda rows: rows[:-1]),
        "celeba:{at},label=Bangs",
        "'{at}/list_attr_celeba.txt' announces 6 images and lists 5: download it again",
    ),
    (
        "attribute list without its count",
        celeba(ATTRIBUTES, lambda rows: rows[1:]),
        "celeba:{at},label=Bangs",
        "'{at}/list_attr_celeba.txt' begins with 'Smiling Bangs Young', not with the number of its images: download it "
        "again",
    ),
    (
        "attribute list without a header",
        celeba(ATTRIBUTES, lambda rows: [rows[0], *rows[2:]]),
        "celeba:{at},label=Bangs",
        "the second line of '{at}/list_attr_celeba.txt' names no attributes: download it again",
    ),
    (
        "attribute missing in a line",
        celeba(ATTRIBUTES, lambda rows: [*rows[:-1], "000006.jpg 1 -1"]),
        "celeba:{at},label=Bangs",
        "line 8 of '{at}/list_attr_celeba.txt' is '000006.jpg 1 -1', not an image and 3 numbers: download it again",
    ),
    (
        "attribute neither 1 nor -1",
        celeba(ATTRIBUTES, lambda rows: [*rows[:-1], "000006.jpg 1 0 1"]),
        "celeba:{at},label=Bangs",
        "Bangs of '000006.jpg' in '{at}/list_attr_celeba.txt' is 0, not 1 or -1: download it again",
    ),
    (
        "no such attribute",
        write_celeba,
        "celeba:{at},label=bangs",
        "'{at}/list_attr_celeba.txt' has no attribute 'bangs': give identity or one of Smiling, Bangs, Young",
    ),
    (
        "listed images missing",
        celeba(IDENTITIES, lambda rows: [*rows, "000007.jpg 1", "000008.jpg 1"]),
        "celeba:{at}",
        "'{at}/img_align_celeba' lacks '000007.jpg' and 1 more of the images that '{at}/identity_CelebA.txt' lists: add them, or "
        "give skip_broken=yes to leave them out",
    ),
    (
        "image not listed",
        celeba(IDENTITIES, lambda rows: rows[1:]),
        "celeba:{at}",
        "'{at}/identity_CelebA.txt' does not list '000001.jpg' of '{at}/img_align_celeba': download it again, or "
        "remove the image",
    ),
    (
        "image listed twice",
        celeba(IDENTITIES, lambda rows: [*rows, rows[0]]),
        "celeba:{at}",
        "'{at}/identity_CelebA.txt' lists '000001.jpg' twice, again in line 7: download it again",
    ),
    (
        "identity no number",
        celeba(IDENTITIES, lambda rows: ["000001.jpg Ada", *rows[1:]]),
        "celeba:{at}",
        "line 1 of '{at}/identity_CelebA.txt' is '000001.jpg Ada', not an image and a number: download it again",
    ),
    (
        "part of an image unknown",
        celeba(PARTITION, lambda rows: rows[1:]),
        "celeba:{at},split=train",
        "'{at}/list_eval_partition.txt' does not list '000001.jpg': download it again",
    ),
    (
        "empty part",
        celeba(PARTITION, lambda rows: [row[:-1] + "0" for row in rows]),
        "celeba:{at},split=valid",
        "'{at}/img_align_celeba' holds no image of split=valid: give another, or leave it out",
    ),
    ("no such split", write_celeba, "celeba:{at},split=val", "CelebA has no split 'val': give train or valid or test"),
    (
        "crop beyond the image",
        write_celeba,
        "celeba:{at},crop=200",
        "crop=200 is outside 1..178, the width of an aligned image: give for instance 140",
    ),
    (
        "no such subset",
        write_celeba,
        "celeba:{at},subset=25000",
        "CelebA has no subset '25000': give hq-identity, or limit=25000 for a random one",
    ),
    (
        "HQ identities missing",
        write_celeba,
        "celeba:{at},subset=hq-identity",
        "'{at}' has no CelebA_HQ_facial_identity_dataset with class folders train/PERSON and test/PERSON: get it from the "
        "authors of subset=hq-identity (Na et al. 2022)",
    ),
    (
        "HQ identities with an attribute",
        write_celeba,
        "celeba:{at},subset=hq-identity,label=Bangs",
        "subset=hq-identity has squares labelled by person: leave out label and crop",
    ),
    (
        "no such HQ part",
        classes("train/1", "test/1"),
        "celeba:{at},subset=hq-identity,split=valid",
        "subset=hq-identity has no split 'valid': give train or test, or leave it out for both",
    ),
    (
        "HQ image of nobody",
        classes("train", "test/1"),
        "celeba:{at},subset=hq-identity",
        "'{at}/train/0.JPEG' is not in the folder of a person: move it into one, or remove it",
    ),
]

MNIST = [
    (
        "no MNIST",
        nothing,
        "mnist:{at}",
        "'{at}' has no train-images-idx3-ubyte (or .gz), train.npz or mnist.npz: give mnist:PATH with the folder that has "
        "one",
    ),
    ("no such split", write_mnist, "mnist:{at},split=valid", "MNIST has no split 'valid': give train or test"),
    (
        "IDX with a wrong magic",
        damaged(write_mnist, IDX, lambda b: b"\0\0\x0d\3" + b[4:]),
        "mnist:{at}",
        "'{at}/train-images-idx3-ubyte' begins with 00000d03, not with 00000803 as IDX files of images do: download it "
        "again",
    ),
    (
        "IDX empty",
        damaged(write_mnist, "train-labels-idx1-ubyte", lambda b: b""),
        "mnist:{at}",
        "'{at}/train-labels-idx1-ubyte' begins with nothing, not with 00000801 as IDX files of labels do: download it "
        "again",
    ),
    (
        "IDX cut short",
        damaged(write_mnist, IDX, lambda b: b[:-7]),
        "mnist:{at}",
        "'{at}/train-images-idx3-ubyte' has 4713 bytes where its header promises 4720: download it again",
    ),
    (
        "IDX cut in its header",
        damaged(write_mnist, IDX, lambda b: b[:10]),
        "mnist:{at}",
        "'{at}/train-images-idx3-ubyte' has 10 bytes where its header promises 16: download it again",
    ),
    (
        "gzip cut short",
        damaged(lambda root: write_mnist(root, end=".gz"), IDX + ".gz", lambda b: b[:-30]),
        "mnist:{at}",
        "'{at}/train-images-idx3-ubyte.gz' is truncated, or is not a gzip file: download it again",
    ),
    (
        "gzip that is none",
        damaged(lambda root: write_mnist(root, end=".gz"), IDX + ".gz", lambda b: b"<html>"),
        "mnist:{at}",
        "'{at}/train-images-idx3-ubyte.gz' is truncated, or is not a gzip file: download it again",
    ),
    (
        "IDX without labels",
        damaged(write_mnist, "train-labels-idx1-ubyte", lambda b: None),
        "mnist:{at}",
        "'{at}' has 'train-images-idx3-ubyte' but no train-labels-idx1-ubyte: download it too",
    ),
    (
        "fewer labels than images",
        archive(x=DIGITS, y=LABELS[:5]),
        "mnist:{at}",
        "'{at}' has 6 images and 5 labels for train: download it again",
    ),
    (
        "labels out of range",
        archive(x=DIGITS, y=LABELS[:6] + 2),
        "mnist:{at}",
        "'{at}' has labels from 3 to 11, not integers from 0 to 9: give a set of ten classes",
    ),
    (
        "wrong keys",
        archive(images=DIGITS, labels=LABELS[:6]),
        "mnist:{at}",
        "'{at}/train.npz' holds images, labels, not x and y or x_train and y_train: rename its arrays",
    ),
    (
        "an array of objects",
        archive(x=np.array([{}], object), y=LABELS[:1]),
        "mnist:{at}",
        "'{at}/train.npz' is damaged, or is not a NumPy archive of numbers: create it again",
    ),
    (
        "no archive",
        lambda root: (root / "train.npz").write_text("no"),
        "mnist:{at}",
        "'{at}/train.npz' is damaged, or is not a NumPy archive of numbers: create it again",
    ),
    (
        "one array",
        lambda root: np.save((root / "train.npz").open("wb"), DIGITS),
        "mnist:{at}",
        "'{at}/train.npz' is damaged, or is not a NumPy archive of numbers: create it again",
    ),
    (
        "another shape",
        archive(x=DIGITS.reshape(6, -1), y=LABELS[:6]),
        "mnist:{at}",
        "'{at}' has images of shape (6, 784) and type uint8, not (N, H, W) and uint8: download it again",
    ),
]

CIFAR10 = [
    ("no such split", write_binary, "cifar10:{at},split=val", "CIFAR-10 has no split 'val': give train or test"),
    (
        "batch missing",
        damaged(write_binary, "data_batch_3.bin", lambda b: None),
        "cifar10:{at}",
        "'{at}' lacks 'data_batch_3.bin': unpack the download again",
    ),
    (
        "batch cut short",
        damaged(write_binary, "data_batch_3.bin", lambda b: b[:-1]),
        "cifar10:{at}",
        "'{at}/data_batch_3.bin' has 6145 bytes, not a multiple of 3073, which a label and an image take: download it "
        "again",
    ),
    (
        "batch of something else",
        damaged(write_binary, "data_batch_3.bin", lambda b: b"\xff" + b[1:]),
        "cifar10:{at}",
        "'{at}/data_batch_3.bin' has the label 255, beyond 9: download it again",
    ),
    (
        "Python batch cut short",
        damaged(write_python, "data_batch_3", lambda b: b[:900]),
        "cifar10:{at}",
        "'{at}/data_batch_3' is truncated, or is not a batch of CIFAR-10: download it again",
    ),
    (
        "Python batch that is none",
        damaged(write_python, "data_batch_3", lambda b: b"<html>"),
        "cifar10:{at}",
        "'{at}/data_batch_3' is truncated, or is not a batch of CIFAR-10: download it again",
    ),
    (
        "Python batch without labels",
        damaged(write_python, "data_batch_3", lambda b: b.replace(b"labels", b"xabels")),
        "cifar10:{at}",
        "'{at}/data_batch_3' has 0 labels but no array of the same number of images: download it again, or the binary version",
    ),
    (
        "other classes",
        classes("cat", "unicorn"),
        "cifar10:{at}",
        "'{at}' has neither batches nor class folders of CIFAR-10, such as 'airplane', but 'unicorn': give folder:PATH "
        "for other classes",
    ),
    (
        "no test folder",
        classes("train/cat"),
        "cifar10:{at},split=test",
        "'{at}' has no folder 'test': give split=train",
    ),
]

STL10 = [
    ("no such split", write_stl, "stl10:{at},split=val", "STL-10 has no split 'val': give train, test or unlabeled"),
    (
        "file missing",
        damaged(write_stl, "train_X.bin", lambda b: None),
        "stl10:{at}",
        "there is no 'train_X.bin' in '{at}': give stl10:PATH with the folder that has it",
    ),
    (
        "images cut short",
        damaged(write_stl, "train_X.bin", lambda b: b[:-1]),
        "stl10:{at}",
        "'{at}/train_X.bin' has 110591 bytes, not a multiple of 27648, which an image takes: download it again",
    ),
    (
        "labels do not fit",
        damaged(write_stl, "train_y.bin", lambda b: b[:-1]),
        "stl10:{at}",
        "'{at}/train_y.bin' has 3 labels for 4 images: download it again",
    ),
    (
        "label out of range",
        damaged(write_stl, "train_y.bin", lambda b: b[:-1] + b"\0"),
        "stl10:{at}",
        "'{at}/train_y.bin' has the label 0, outside 1..10: download it again",
    ),
]

CLASSES = [
    (
        "other folders",
        classes(WNIDS[0], "tench"),
        "imagenet:{at}",
        "'{at}' has the folder 'tench', not WordNet ids such as 'n01440764': sort the images into such folders, or give "
        "folder:PATH",
    ),
    (
        "no class folders",
        lambda root: save(root / "ILSVRC2012_val_00000001.JPEG", PHOTOS[0]),
        "imagenet:{at}",
        "'{at}' holds images without class folders, not WordNet ids such as 'n01440764': sort the images into such "
        "folders, or give folder:PATH",
    ),
    (
        "damaged words",
        classes(WNIDS[0], then=lambda root: (root / "synset_words.txt").write_text("tench\n")),
        "imagenet:{at}",
        "line 1 of '{at}/synset_words.txt' is 'tench', not a WordNet id and its words: download it again, or remove it",
    ),
    (
        "no folders of parts",
        classes(WNIDS[0]),
        "imagenet:{at},split=val",
        "'{at}' has no folder 'val': leave split out to read its class folders",
    ),
    (
        "no class",
        classes(*WNIDS),
        "imagenet:{at},classes=0",
        "classes=0 cannot be taken from 2 class folders: give 1 to 2, or leave classes out",
    ),
    (
        "too many classes",
        classes(*WNIDS),
        "imagenet:{at},classes=3",
        "classes=3 cannot be taken from 2 class folders: give 1 to 2, or leave classes out",
    ),
    (
        "no image of a class",
        classes(*WNIDS),
        "imagenet:{at},per_class=0",
        "per_class=0 cannot be drawn from the 2 images of 'n01440764': give 1 to 2, or leave per_class out",
    ),
    (
        "too many of a class",
        classes(*WNIDS, then=lambda root: (root / WNIDS[1] / "0.JPEG").unlink()),
        "imagenet:{at},per_class=2",
        "per_class=2 cannot be drawn from the 1 images of 'n01443537': give 1 to 1, or leave per_class out",
    ),
    ("no such part", classes("abbey"), "places365:{at},split=test", "Places365 has no split 'test': give train or val"),
    (
        "no class folders",
        lambda root: save(root / "Places365_val_00000001.jpg", PHOTOS[0]),
        "places365:{at}",
        "'{at}' holds images without class folders such as 'abbey': sort them into such folders, or give folder:PATH",
    ),
]

CASES = FOLDER + OPTIONS + CELEBA + MNIST + CIFAR10 + STL10 + CLASSES
NAMES = [f"{source.partition(':')[0]}: {wrong}" for wrong, _, source, _ in CASES]


@pytest.mark.parametrize(("write", "source", "sentence"), [case[1:] for case in CASES], ids=NAMES)
def test_bad_input(tmp_path, write, source, sentence, request):
    write(tmp_path)
    with pytest.raises(Refused) as caught:
        data.load(source.format(at=tmp_path))
    said = str(caught.value).replace(str(tmp_path), "{at}")
    said = re.sub(r"\d+ bytes not processed", "N bytes not processed", said)  # as the JPEG library has it
    print(f"{request.node.callspec.id} | {source} | {said}")
    assert said == sentence


def test_no_width():
    with pytest.raises(Refused, match="images cannot be 0 pixels wide: give a size of 1 or more"):
        data.load("digits", 0)
