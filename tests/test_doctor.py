"""The doctor: exit 0 on a bare machine, in words on a broken one, and of one mind with the data sources."""

import hashlib
import importlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from memlib import assets, cli
from memlib.chapters import needs
from memlib.cli import doctor
from memlib.errors import Refused

ROOT = Path(__file__).parents[1]
NAMES = [asset.name for asset in assets.ASSETS]
KNOWN = {asset.name: asset for asset in assets.ASSETS}
WRITTEN = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """A machine with an empty home, no folders named, no GPU and no network."""

    def refuse(*_):
        raise AssertionError("the doctor asked the network")

    for name in list(os.environ):
        if name.startswith(("MEMLIB_", "HF_", "TORCH_HOME", "XDG_", "SCIKIT_LEARN")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for folder in ("home", "data", "weights"):
        (tmp_path / folder).mkdir()
    return tmp_path


def put(path, content=b""):
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def picture(path):
    """Write a small picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path)


def told(capsys, *options):
    """What `memlib doctor` prints."""
    assert cli.main(["doctor", *options]) == 0
    return capsys.readouterr().out


def states(capsys):
    """The state of every asset, by name."""
    return {row["name"]: row for row in json.loads(told(capsys, "--json"))["assets"]}


def test_a_bare_machine_is_told_what_is_missing_and_how_to_get_it(bare, capsys):
    text = told(capsys)
    assert max(map(len, text.splitlines())) <= 100
    for asset in assets.ASSETS:
        (line,) = [line for line in text.splitlines() if line.split()[:2] == [asset.name, "missing"]]
        assert asset.licence in line
        assert asset.origin in text and all(part in text for part in asset.obtain.splitlines())
        assert all(assets.FILES[name].sha256 in text for name in asset.published)
    assert "export MEMLIB_DATA=FOLDER" in text and "export MEMLIB_WEIGHTS=FOLDER" in text
    assert "no GPU that torch can use" in text and "what is here" not in text
    lines = [line.split(maxsplit=1) for line in text.splitlines() if " lacks " in line or line.endswith(" ready")]
    assert ["02_side", "gpu    lacks cuda"] in lines and ["paper", "lacks cuda, celeba, sscd"] in lines
    assert list((bare / "home").iterdir()) == []  # nothing is written, not even scikit-learn's folder


def test_an_empty_environment_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "memlib.cli", "doctor"]
    done = subprocess.run(command, cwd=ROOT, env={}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    environment = {"PYTHONPATH": str(ROOT), "PATH": str(tmp_path)}
    outside = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (outside.returncode, outside.stderr) == (0, "")
    assert "npm         missing: the book loads MathJax from a CDN" in outside.stdout


def test_json_says_the_same(capsys):
    seen = json.loads(told(capsys, "--json"))
    assert [row["name"] for row in seen["assets"]] == NAMES
    assert {row["state"] for row in seen["assets"]} == {"missing"}
    missing = {(entry["chapter"], entry["scale"]): entry["missing"] for entry in seen["scales"]}
    assert missing["02_side", "fast"] == [] and missing["02_side", "paper"] == ["cuda", "celeba", "sscd"]
    assert missing["01_gaussian_mixtures", "paper"] == [] and len(missing) == 4 * len(WRITTEN)
    assert seen["devices"]["torch"] == torch.__version__ and seen["devices"]["cores"] >= 1
    assert seen["folders"] == {"MEMLIB_DATA": None, "MEMLIB_WEIGHTS": None}


def test_a_gpu_is_described(capsys, monkeypatch):
    card = type("Card", (), {"total_memory": 80 * 2**30})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Test Card")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    text = told(capsys)
    assert "Test Card, 80 GiB, bf16" in text
    assert ["paper", "lacks celeba, sscd"] in [line.split(maxsplit=1) for line in text.splitlines()]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert "Test Card, 80 GiB\n" in told(capsys)


def celeba(root, images="img_align_celeba", lists=""):
    """Two faces and both lists."""
    for name in ("000001.jpg", "000002.jpg"):
        picture(root / images / name)
    put(root / lists / "identity_CelebA.txt", b"000001.jpg 7\n000002.jpg 3\n")
    put(root / lists / "list_attr_celeba.txt", b"2\nBangs Smiling\n000001.jpg 1 -1\n000002.jpg -1 -1\n")


def digits(path, x, y):
    """A NumPy archive of two digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numpy.savez(path, **{x: numpy.zeros((2, 28, 28), numpy.uint8), y: numpy.array([3, 7], numpy.uint8)})


def idx(root, ending="-ubyte"):
    """Two digits in the format of the MNIST page."""
    put(root / f"train-images-idx3{ending}", bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(2 * 784))
    put(root / f"train-labels-idx1{ending}", bytes([0, 0, 8, 1, 0, 0, 0, 2, 3, 7]))


def stl10(root):
    """Two photographs in the official format."""
    put(root / "train_X.bin", bytes(2 * 3 * 96 * 96))
    put(root / "train_y.bin", bytes([1, 10]))


LAYOUTS = [
    ("celeba", celeba, "partial", "2 of 202,599 images"),
    ("celeba", lambda root: celeba(root, "Img/img_align_celeba", "Anno"), "partial", "2 of 202,599 images"),
    ("celeba", lambda root: celeba(root, "img_align_celeba/img_align_celeba"), "partial", "2 of 202,599 images"),
    ("mnist", idx, "found", ""),
    ("mnist", lambda root: idx(root / "MNIST" / "raw"), "found", ""),
    ("mnist", lambda root: digits(root / "train.npz", "x", "y"), "found", ""),
    ("mnist", lambda root: digits(root / "mnist.npz", "x_train", "y_train"), "found", ""),
    ("cifar10", lambda root: picture(root / "train" / "dog" / "1.png"), "found", "1 folders"),
    ("cifar10", lambda root: picture(root / "airplane" / "1.png"), "found", "1 folders"),
    ("cifar10", lambda root: [put(root / "cifar-10-batches-bin" / f"data_batch_{i}.bin", bytes(3073)) for i in
                              range(1, 6)], "found", ""),
    ("stl10", stl10, "found", ""),
    ("stl10", lambda root: stl10(root / "stl10_binary"), "found", ""),
    ("imagenet", lambda root: picture(root / "n01440764" / "n01440764_10026.JPEG"), "partial", "1 of 1,000 folders"),
    ("imagenet", lambda root: picture(root / "train" / "n01440764" / "1.JPEG"), "partial", "1 of 1,000 folders"),
    ("places365", lambda root: picture(root / "abbey" / "1.jpg"), "found", "1 folders"),
    ("places365", lambda root: picture(root / "train" / "abbey" / "1.jpg"), "found", "1 folders"),
    ("places365", lambda root: picture(root / "a" / "abbey" / "1.jpg"), "found", "1 folders"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "state", "detail"), LAYOUTS)
def test_what_a_source_reads_is_found(bare, capsys, monkeypatch, name, make, state, detail):
    """Each layout passes through the source itself, so that the doctor and the loader cannot drift apart."""
    root = bare / "data" / name
    root.mkdir()
    make(root)
    assert len(importlib.import_module(f"memlib.data.{name}").load(str(root), None)) in (1, 2, 5)
    monkeypatch.setenv("MEMLIB_DATA", str(bare / "data"))
    rows = states(capsys)
    row = rows.pop(name)
    assert (row["state"], row["path"]) == (state, str(root)) and row["detail"].startswith(detail)
    assert {other["state"] for other in rows.values()} == {"missing"}
    assert f"-p data={name}:{root}" in told(capsys)


BROKEN = [
    ("celeba", lambda root: celeba(root) or [path.unlink() for path in root.glob("*.txt")], "lacks list_attr_celeba"),
    ("celeba", lambda root: put(root / "img_align_celeba.zip"), "holds img_align_celeba.zip, still packed: unpack it"),
    ("mnist", lambda root: idx(root) or (root / "train-labels-idx1-ubyte").unlink(), "lacks train-labels*ubyte*"),
    ("cifar10", lambda root: put(root / "cifar-10-python.tar.gz"), "still packed"),
    ("stl10", lambda root: put(root / "train_X.bin"), "lacks train_y.bin"),
    ("imagenet", lambda root: picture(root / "cats" / "1.jpg"), "holds none of: n*/*.jpg, or train/n*/*.jpg"),
    ("places365", lambda root: None, "is empty"),
]


@pytest.mark.parametrize(("name", "make", "words"), BROKEN)
def test_what_a_source_refuses_is_broken_in_words(bare, capsys, monkeypatch, name, make, words):
    root = bare / "data" / name
    root.mkdir()
    make(root)
    with pytest.raises(Refused):
        importlib.import_module(f"memlib.data.{name}").load(str(root), None)
    monkeypatch.setenv("MEMLIB_DATA", str(bare / "data"))
    row = states(capsys)[name]
    assert row["state"] == "broken" and words in row["detail"]
    text = told(capsys)
    assert f"{name}  broken: {root}" in text and KNOWN[name].origin in text  # also how to get it


def test_a_folder_that_does_not_exist_is_named(bare, capsys, monkeypatch):
    monkeypatch.setenv("MEMLIB_DATA", str(bare / "nowhere"))
    text = told(capsys)
    assert f"data, in MEMLIB_DATA={bare / 'nowhere'}, which is no folder" in text
    assert "weights, in MEMLIB_WEIGHTS, which is not set" in text


def test_scikit_learns_own_folder_is_looked_into(bare, capsys, monkeypatch):
    put(bare / "home" / "scikit_learn_data" / "olivetti_py3.pkz")
    picture(bare / "elsewhere" / "lfw_home" / "lfw_funneled" / "Some_Body" / "Some_Body_0001.jpg")
    assert [name for name, row in states(capsys).items() if row["state"] == "found"] == ["olivetti"]
    assert "-p data=olivetti\n" in told(capsys)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(bare / "elsewhere"))
    assert [name for name, row in states(capsys).items() if row["state"] == "found"] == ["lfw"]


@pytest.fixture
def published(monkeypatch):
    """A published file that a test can make: its name stands in the record with this content's size and hash."""
    content = b"weights" * 1000
    file = assets.File("sscd_disc_mixup.torchscript.pt", len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(assets.FILES, file.name, file)
    return file, content


def test_weights_are_compared_with_what_is_published(bare, capsys, monkeypatch, published):
    file, content = published
    monkeypatch.setenv("MEMLIB_WEIGHTS", str(bare / "weights"))
    path = put(bare / "weights" / file.name, content)
    row = states(capsys)["sscd"]
    assert (row["state"], row["files"][0]["sha256"]) == ("found", file.sha256)
    assert f"{file.name}: SHA-256 as published" in told(capsys)

    path.write_bytes(content[:-1] + b"S")  # of the same size
    text = told(capsys)
    assert "SHA-256, not the one published" in text and hashlib.sha256(path.read_bytes()).hexdigest() in text

    path.write_bytes(content[:-5])  # a download that was cut
    row = states(capsys)["sscd"]
    assert row["state"] == "broken"
    assert row["detail"] == f"{file.name} has 6,995 bytes where 7,000 are published: download it again"
    assert "paper  lacks cuda, celeba, sscd" in told(capsys)


def test_large_files_are_hashed_only_on_request(bare, capsys, monkeypatch, published):
    file, content = published
    put(bare / "weights" / "sscd" / file.name, content)  # in a folder of its own, too
    monkeypatch.setenv("MEMLIB_WEIGHTS", str(bare / "weights"))
    monkeypatch.setattr(doctor, "_SOON", 6_999)
    assert states(capsys)["sscd"]["files"][0]["sha256"] is None
    assert "SHA-256 not computed, memlib doctor --hash" in told(capsys)
    assert "SHA-256 as published" in told(capsys, "--hash")


def test_a_hash_that_nobody_publishes_is_shown_to_keep(bare, capsys, monkeypatch):
    snapshot = bare / "home" / ".cache" / "huggingface" / "hub" / "models--google--ddpm-cifar10-32" / "snapshots" / "a1"
    put(snapshot / "config.json", b"{}")
    put(snapshot / "diffusion_pytorch_model.safetensors", b"some weights")
    row = states(capsys)["ddpm-cifar10-32"]
    assert (row["state"], row["path"]) == ("found", str(snapshot))
    text = told(capsys)
    assert "SHA-256, none on record to compare" in text and hashlib.sha256(b"some weights").hexdigest() in text
    assert f"-p model={snapshot}" in text
    monkeypatch.setenv("HF_HOME", str(bare / "elsewhere"))
    assert states(capsys)["ddpm-cifar10-32"]["state"] == "missing"
    monkeypatch.setenv("HF_HUB_CACHE", str(snapshot.parents[2]))
    assert states(capsys)["ddpm-cifar10-32"]["state"] == "found"


def test_weights_that_we_do_not_read_are_broken(bare, capsys, monkeypatch):
    hub = bare / "home" / ".cache" / "huggingface" / "hub" / "models--google--ddpm-celebahq-256" / "snapshots" / "a1"
    put(hub / "model_index.json", b"{}")
    put(hub / "diffusion_pytorch_model.bin", b"a pickle")
    row = states(capsys)["ddpm-celebahq-256"]
    assert row["state"] == "broken" and "a pickle (.bin) alone" in row["detail"]
    put(hub / "config.json", b"{}")  # as the Hub has it
    assert "a pickle (.bin) alone" in states(capsys)["ddpm-celebahq-256"]["detail"]
    monkeypatch.setenv("MEMLIB_WEIGHTS", str(bare / "weights"))  # after the command that the doctor gives
    folder = bare / "weights" / "ddpm-celebahq-256"
    put(folder / "unet" / "config.json", b"{}")
    put(folder / "unet" / "diffusion_pytorch_model.safetensors", b"weights")
    assert states(capsys)["ddpm-celebahq-256"]["path"] == str(folder)


def test_loose_files_of_others_do_not_confuse(bare, capsys, monkeypatch):
    monkeypatch.setenv("MEMLIB_WEIGHTS", str(bare / "weights"))
    put(bare / "weights" / "my_model.pth")
    put(bare / "weights" / "mage-vitb-1600.pth")
    rows = states(capsys)
    assert rows["mage"]["state"] == "broken" and rows["mage"]["detail"] == "lacks vqgan_jax_strongaug.ckpt"
    assert {row["state"] for name, row in rows.items() if name != "mage"} == {"missing"}
    put(bare / "weights" / "vqgan_jax_strongaug.ckpt")
    assert states(capsys)["mage"]["state"] == "found"


def test_it_says_how_chapter_3_takes_the_papers_own_models(bare, capsys, monkeypatch):
    monkeypatch.setenv("MEMLIB_WEIGHTS", str(bare / "weights"))
    for name in ("mage-vitb-1600.pth", "vqgan_jax_strongaug.ckpt"):
        put(bare / "weights" / name)
    for name in ("config.json", "model.safetensors"):
        put(bare / "weights" / "vit-mae-base" / name)
    text = told(capsys)
    for place in (bare / "weights", bare / "weights" / "vit-mae-base"):
        assert f"-p checkpoint={place}\n" in text


def test_torchs_cache_is_looked_into(bare, capsys, monkeypatch):
    name = "weights-inception-2015-12-05-6726825d.pth"  # under this name torch-fidelity keeps the same file
    put(bare / "torch" / "hub" / "checkpoints" / name, b"cut short")
    monkeypatch.setenv("TORCH_HOME", str(bare / "torch"))
    row = states(capsys)["inception"]
    assert row["state"] == "broken" and "9 bytes where 95,628,359 are published" in row["detail"]


def test_a_folder_that_cannot_be_read_is_said_so(bare, capsys, monkeypatch):
    (bare / "data" / "celeba").mkdir()
    monkeypatch.setenv("MEMLIB_DATA", str(bare / "data"))

    def denied(_, pattern):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "glob", denied)
    seen = assets.look(KNOWN["celeba"])
    assert (seen.state, seen.detail) == ("broken", "cannot be read: Permission denied")


def test_the_chapters_are_those_of_the_toc():
    assert needs.chapters(ROOT) == WRITTEN
    assert set(needs.chapters(None)) <= set(WRITTEN)


def test_the_record_is_consistent():
    assert len(set(NAMES)) == len(NAMES)
    for name, file in assets.FILES.items():
        assert file.name == name and len(file.sha256) == 64 and set(file.sha256) <= set("0123456789abcdef")
    assert assets.FILES["pt_inception-2015-12-05-6726825d.pth"].sha256.startswith("6726825d")  # its name says so
    assert {name for asset in assets.ASSETS for name in asset.published} == set(assets.FILES)
    for (chapter, scale), names in needs.NEEDS.items():
        assert chapter in WRITTEN and scale in ("gpu", "paper") and set(names) <= {*NAMES, "cuda"}
    for asset in assets.ASSETS:
        whole = sum(assets.FILES[name].size or 0 for name in asset.published)
        if asset.kind == "weights" and whole:
            assert whole == pytest.approx(asset.size, rel=0.01)
        assert asset.origin.startswith("http") and asset.licence


def test_the_hashes_that_scikit_learn_checks_are_these():
    olivetti = importlib.import_module("sklearn.datasets._olivetti_faces")
    lfw = importlib.import_module("sklearn.datasets._lfw")
    assert assets.FILES["olivettifaces.mat"].sha256 == olivetti.FACES.checksum
    assert assets.FILES["lfw-funneled.tgz"].sha256 == lfw.FUNNELED_ARCHIVE.checksum
