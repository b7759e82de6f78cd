"""Data sets and weights that the book can use but does not contain: origin, licence, and whether they are here.

The facts are from the publishers, or from catalogues and code that many people use to check downloads (TensorFlow
Datasets, Keras, scikit-learn, pages of the Hugging Face Hub); a fact that was not found there is None. A data set is in
a folder of its name inside MEMLIB_DATA, or in scikit-learn's folder. Weights are in MEMLIB_WEIGHTS, or in the caches of
the Hugging Face Hub and of torch.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple


class File(NamedTuple):
    """A file as published: its name, and its size in bytes and SHA-256 where they are known."""

    name: str
    size: int | None
    sha256: str | None


class Found(NamedTuple):
    """Whether and where an asset was found, with details. A `partial` asset can be used, a `broken` one cannot."""

    state: Literal["found", "partial", "broken", "missing"]
    path: Path | None
    detail: str


@dataclass(frozen=True)
class Asset:
    """One data set or set of weights.

    Arguments:
        name: in `-p data=NAME`, and of its folder.
        kind: "data" or "weights".
        origin: the page of its publisher.
        licence: as stated there.
        size: bytes, approximately.
        layouts: patterns of files in its folder. The asset is here if every pattern of one layout matches a file.
        obtain: what to do to get it.
        published: its files whose size or SHA-256 is known.
        count: images of the whole set, or folders if the first pattern has a pattern for folders.
        hub: its name on the Hugging Face Hub.
        loose: whether its files have unique names and may be directly in MEMLIB_WEIGHTS.
        setting: the chapter's parameter that takes its folder, if that is not `model`.
    """

    name: str
    kind: Literal["data", "weights"]
    origin: str
    licence: str
    size: int | None
    layouts: tuple[tuple[str, ...], ...]
    obtain: str
    published: tuple[str, ...] = ()
    count: int | None = None
    hub: str = ""
    loose: bool = False
    setting: str = ""


_FILES = """
img_align_celeba.zip                   1443490838 46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74
list_attr_celeba.txt                     26721026 f0e5da289d5ccf75ffe8811132694922b60f2af59256ed362afa03fefba324d0
train-images-idx3-ubyte.gz                9912422 440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609
train-labels-idx1-ubyte.gz                  28881 3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c
t10k-images-idx3-ubyte.gz                 1648877 8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6
t10k-labels-idx1-ubyte.gz                    4542 f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6
mnist.npz                                       - 731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1
cifar-10-python.tar.gz                  170498071 6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce
cifar-10-binary.tar.gz                  170052171 c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd
stl10_binary.tar.gz                    2640397119 f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866
ILSVRC2012_img_train.tar             147897477120 b08200a27a8e34218a0e58fde36b0fe8f73bc377f4acea2d91602057c3ca45bb
ILSVRC2012_img_val.tar                 6744924160 c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0
train_256_places365standard.tar       26103685120 0ade5d7d38c682aa0203014a2b99ad3bf608bf1de0f151dc0d80efba54660a0a
val_256.tar                             525158400 24b4e639ef12a0012af525bc4cb443e4ab4aaea8369a1fb009b70e4a4aad5d48
olivettifaces.mat                               - b612fb967f2dc77c9c62d3e1266e0c73d5fca46a4b8906c18e454d41af987794
lfw-funneled.tgz                                - b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a
sscd_disc_mixup.torchscript.pt           98791638 9f26bd4c848cc19b73d2ae92eea6e04886f61a7b764ceb7a13aeee62e6a6db56
pt_inception-2015-12-05-6726825d.pth     95628359 6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2
inception-2015-12-05.pt                  95607719 f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4
"""

FILES = {
    name: File(name, None if size == "-" else int(size), sha256)
    for name, size, sha256 in map(str.split, _FILES.strip().splitlines())
}

_IMAGE = "*.[jJpP][pPnN]*[gG]"  # jpg, jpeg, JPEG, png
DIFFUSERS = (("unet/config.json", "unet/*.safetensors"), ("config.json", "diffusion_pytorch_model.safetensors"))

ASSETS = (
    Asset(
        "celeba", "data", "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html", "non-commercial research",
        1_470_000_000,
        tuple((f"{folder}img_align_celeba/{_IMAGE}", f"{lists}{name}")
              for folder, lists in (("", ""), ("Img/", "Anno/"), ("img_align_celeba/", ""))
              for name in ("list_attr_celeba.txt", "identity_CelebA.txt")),
        "unpack into $MEMLIB_DATA/celeba: img_align_celeba/*.jpg, list_attr_celeba.txt and,\n"
        "to label by person, identity_CelebA.txt", ("img_align_celeba.zip", "list_attr_celeba.txt"), 202_599,
    ),
    Asset(
        "mnist", "data", "https://storage.googleapis.com/cvdf-datasets/mnist/", "CC BY-SA 3.0", 11_600_000,
        (*((f"{folder}train-images*ubyte*", f"{folder}train-labels*ubyte*") for folder in ("", "raw/", "MNIST/raw/")),
         ("train.npz",), ("mnist.npz",)),
        "put the four *-ubyte.gz files, or Keras's mnist.npz, into $MEMLIB_DATA/mnist",
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
         "t10k-labels-idx1-ubyte.gz", "mnist.npz"),
    ),
    Asset(
        "cifar10", "data", "https://www.cs.toronto.edu/~kriz/cifar.html", "none stated", 170_000_000,
        (("cifar-10-batches-py/data_batch_1",), ("data_batch_1",), ("cifar-10-batches-bin/data_batch_1.bin",),
         ("data_batch_1.bin",), (f"train/*/{_IMAGE}",), (f"*/{_IMAGE}", f"airplane/{_IMAGE}")),
        "unpack an archive into $MEMLIB_DATA/cifar10, or lay out {train,test}/CLASS/*.png there",
        ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"),
    ),
    Asset(
        "stl10", "data", "https://cs.stanford.edu/~acoates/stl10/", "none stated (ImageNet's images)", 2_640_000_000,
        (("train_X.bin", "train_y.bin"), ("stl10_binary/train_X.bin", "stl10_binary/train_y.bin")),
        "unpack stl10_binary.tar.gz into $MEMLIB_DATA/stl10", ("stl10_binary.tar.gz",),
    ),
    Asset(
        "imagenet", "data", "https://image-net.org/download", "non-commercial research", 154_600_000_000,
        ((f"n*/{_IMAGE}",), (f"train/n*/{_IMAGE}",)),
        "unpack into $MEMLIB_DATA/imagenet, a folder a class, named as in n01440764",
        ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"), 1000,
    ),
    Asset(
        "places365", "data", "http://places2.csail.mit.edu", "images belong to their owners", 26_600_000_000,
        ((f"*/{_IMAGE}",), (f"*/*/{_IMAGE}",), (f"*/*/*/{_IMAGE}",)),
        "unpack into $MEMLIB_DATA/places365, a folder a class",
        ("train_256_places365standard.tar", "val_256.tar"),
    ),
    Asset(
        "olivetti", "data", "https://cam-orl.co.uk/facedatabase.html", "none stated (credit AT&T)", None,
        (("olivetti*.pkz",),), "python -c 'from sklearn.datasets import fetch_olivetti_faces as fetch; fetch()'",
        ("olivettifaces.mat",),
    ),
    Asset(
        "lfw", "data", "http://vis-www.cs.umass.edu/lfw/", "none stated", 233_000_000,
        ((f"lfw_home/lfw_funneled/*/{_IMAGE}",),),
        "python -c 'from sklearn.datasets import fetch_lfw_people as fetch; fetch()'", ("lfw-funneled.tgz",),
    ),
    Asset(
        "sscd", "weights", "https://github.com/facebookresearch/sscd-copy-detection", "MIT", 98_800_000,
        (("sscd_disc_mixup.torchscript.pt",),),
        "cd $MEMLIB_WEIGHTS\n"
        "curl -LO https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchscript.pt",
        ("sscd_disc_mixup.torchscript.pt",), loose=True,
    ),
    Asset(    # ResNeXt101, the one that Real-Fake took; nobody was found who publishes its hash
        "sscd-large", "weights", "https://github.com/facebookresearch/sscd-copy-detection", "MIT", None,
        (("sscd_disc_large.torchscript.pt",),),
        "cd $MEMLIB_WEIGHTS\n"
        "curl -LO https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_large.torchscript.pt", loose=True,
    ),
    Asset(    # the network of the first FID; the i2i paper took torchvision's Inception-v3, which has other weights
        "inception", "weights", "https://github.com/mseitzer/pytorch-fid", "Apache-2.0", 95_600_000,
        (("pt_inception-2015-12-05-6726825d.pth",), ("weights-inception-2015-12-05-6726825d.pth",)),
        "cd $MEMLIB_WEIGHTS; releases=https://github.com/mseitzer/pytorch-fid/releases/download\n"
        "curl -LO $releases/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        ("pt_inception-2015-12-05-6726825d.pth",), loose=True,
    ),
    Asset(    # the same network, complete, as TorchScript: what features.inception reads
        "inception-torchscript", "weights", "https://github.com/NVlabs/stylegan2-ada-pytorch", "Apache-2.0", 95_600_000,
        (("inception-2015-12-05.pt",),),
        "cd $MEMLIB_WEIGHTS; releases=https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained\n"
        "curl -LO $releases/metrics/inception-2015-12-05.pt", ("inception-2015-12-05.pt",), loose=True,
    ),
    Asset(
        "clip", "weights", "https://huggingface.co/laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "MIT", 3_940_000_000,
        (("config.json", "model.safetensors"),),
        "hf download laion/CLIP-ViT-H-14-laion2B-s32B-b79K config.json model.safetensors",
        hub="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    ),
    Asset(
        "mage", "weights", "https://github.com/LTH14/mage", "MIT", None,
        (("mage-vitb-1600.pth", "vqgan_jax_strongaug.ckpt"),),
        "download the ViT-Base checkpoint and the VQGAN tokenizer linked there into $MEMLIB_WEIGHTS", loose=True,
        setting="checkpoint",
    ),
    Asset(
        "vit-mae-base", "weights", "https://huggingface.co/facebook/vit-mae-base",
        "Apache-2.0 (first CC BY-NC 4.0)", 448_000_000, (("config.json", "model.safetensors"),),
        "hf download facebook/vit-mae-base config.json model.safetensors", hub="facebook/vit-mae-base",
        setting="checkpoint",
    ),
    Asset(
        "ddpm-cifar10-32", "weights", "https://huggingface.co/google/ddpm-cifar10-32", "Apache-2.0", 143_000_000,
        DIFFUSERS, "hf download google/ddpm-cifar10-32 --exclude '*.bin'", hub="google/ddpm-cifar10-32",
    ),
    Asset(    # on the Hub only as a pickle, which this project does not read: diffusers turns it into safetensors
        "ddpm-celebahq-256", "weights", "https://huggingface.co/google/ddpm-celebahq-256", "Apache-2.0", 455_000_000,
        DIFFUSERS,
        "python -c \"from diffusers import DDPMPipeline as P; \\\n"
        "    P.from_pretrained('google/ddpm-celebahq-256') \\\n"
        "    .save_pretrained('$MEMLIB_WEIGHTS/ddpm-celebahq-256')\"", hub="google/ddpm-celebahq-256",
    ),
)  # fmt: skip


def look(asset: Asset) -> Found:
    """Look for an asset on this machine, without a network: the first usable place, else what is wrong with it."""
    broken = None
    for place, own in _places(asset):
        try:
            seen = _inspect(asset, place, own)
        except OSError as error:
            seen = Found("broken", place, f"cannot be read: {error.strerror or error}")
        if seen.state in ("found", "partial"):
            return seen
        broken = broken or (seen if seen.state == "broken" else None)
    return broken or Found("missing", None, "")


def here(asset: Asset, place: Path) -> Iterator[tuple[Path, File]]:
    """Files in an asset's folder that a hash can identify: those published with a hash, and all weights."""
    names = {*asset.published, *(name for layout in asset.layouts for name in layout if asset.kind == "weights")}
    for name in sorted(names):
        for path in sorted(place.glob(name)):
            if path.is_file() and path.suffix != ".json":
                yield path, FILES.get(path.name.replace("weights-inception", "pt_inception"), File(name, None, None))


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _places(asset: Asset) -> Iterator[tuple[Path, bool]]:
    """Folders in which an asset may be, and whether each folder is for this asset only."""
    user = Path(os.path.expanduser("~"))  # Path.home() fails where there is none
    cache = Path(os.environ.get("XDG_CACHE_HOME") or user / ".cache")
    root = os.path.expanduser(os.environ.get("MEMLIB_DATA" if asset.kind == "data" else "MEMLIB_WEIGHTS", ""))
    places = [(Path(root) / asset.name, True)] if root else []
    if asset.name in ("olivetti", "lfw"):
        places.append((Path(os.environ.get("SCIKIT_LEARN_DATA") or user / "scikit_learn_data"), False))
    if asset.loose:
        torch_home = Path(os.environ.get("TORCH_HOME") or cache / "torch")
        places += [(Path(root), False)] if root else []
        places.append((torch_home / "hub" / "checkpoints", False))
    if asset.hub:
        hub = Path(os.environ.get("HF_HOME") or cache / "huggingface") / "hub"
        model = Path(os.environ.get("HF_HUB_CACHE") or hub) / f"models--{asset.hub.replace('/', '--')}" / "snapshots"
        places += [(snapshot, True) for snapshot in sorted(model.glob("*/"))]
    yield from ((place, own) for place, own in places if place.is_dir())


def _inspect(asset: Asset, place: Path, own: bool) -> Found:
    """What a folder contains of an asset. A folder for this asset only that contains nothing of it is broken."""
    lacking: list[str] = []
    for layout in asset.layouts:
        missed = [pattern for pattern in layout if not any(place.glob(pattern))]
        if not missed:
            return _whole(asset, place, layout)
        if len(missed) < len(layout):
            lacking = lacking or missed
    if asset.hub and own and (any(place.glob("*.bin")) or any(place.glob("unet/*.bin"))):
        return Found("broken", place, "has its weights as a pickle (.bin) alone, and only safetensors are read")
    if lacking:
        return Found("broken", place, f"lacks {_words(lacking)}")
    if not own:
        return Found("missing", None, "")
    if packed := [name for name in asset.published if (place / name).is_file()]:
        return Found("broken", place, f"holds {_words(packed)}, still packed: unpack it there")
    wanted = ", or ".join(_words(layout) for layout in asset.layouts)
    return Found("broken", place, f"holds none of: {wanted}" if any(place.iterdir()) else "is empty")


def _whole(asset: Asset, place: Path, layout: tuple[str, ...]) -> Found:
    """An asset whose files are all there: the number of images, and whether the sizes are as published."""
    odd = [
        f"{path.name} has {path.stat().st_size:,} bytes where {file.size:,} are published"
        for path, file in here(asset, place)
        if file.size not in (None, path.stat().st_size)
    ]
    if odd and asset.kind == "weights":
        return Found("broken", place, f"{odd[0]}: download it again")
    folders, _, last = layout[0].rpartition("/")
    if last != _IMAGE:
        return Found("partial" if odd else "found", place, "; ".join(odd))
    what = "folders" if "*" in folders else "images"
    count = sum(1 for _ in place.glob(f"{folders}/" if "*" in folders else layout[0]))
    part = asset.count is not None and count < asset.count
    told = f"{count:,} of {asset.count:,} {what}" if part else f"{count:,} {what}"
    return Found("partial" if part or odd else "found", place, "; ".join([told, *odd]))


def _words(patterns: tuple[str, ...] | list[str]) -> str:
    return " and ".join(pattern.replace(_IMAGE, "*.jpg") for pattern in patterns)
