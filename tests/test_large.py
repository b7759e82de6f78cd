"""Sets larger than memory: the same results as in memory, within a limit; a kill and a changed file while reading."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
import torch
from limited_memory import drawn
from PIL import Image

from memlib import data, features, membership, metrics, stored
from memlib.cache import fingerprint
from memlib.data import _shelf
from memlib.errors import Refused

ROOT = Path(__file__).parents[1]
COUNT, SIDE, MEGABYTES = 13_000, 64, 150
LEVELS = numpy.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), numpy.uint8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / "cache"))


def put(folder, levels, name="{:03}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(levels):
        Image.fromarray(pixels if number % 7 else pixels[..., 0]).save(folder / name.format(number))
    return folder


@pytest.fixture
def small(tmp_path, monkeypatch):
    """310 images of 16 pixels, some of them twice and some without colour, kept 40 to a file."""
    monkeypatch.setattr(_shelf, "_BYTES", 40 * 3 * 16 * 16)
    monkeypatch.setattr(stored, "BYTES", 1 << 16)
    put(tmp_path / "images", LEVELS)
    return put(tmp_path / "images", LEVELS[:10], "twice{:03}.png")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_a_set_four_times_larger_than_the_memory_gives_the_same(tmp_path):
    assert COUNT * 3 * SIDE**2 * 4 > 4 * MEGABYTES * 2**20  # as float32, and as bytes about as large as the limit
    for name, count in (("train", COUNT), ("held_out", 60), ("what", 20)):
        drawn(tmp_path / name, count, SIDE, count)
    for number in range(10):
        shutil.copy(tmp_path / f"train/{number:05}.bmp", tmp_path / f"what/{number:05}.bmp")
        shutil.copy(tmp_path / f"train/{number:05}.bmp", tmp_path / f"train/9{number:04}.bmp")

    def run(out, megabytes):
        command = [sys.executable, str(ROOT / "tests/limited_memory.py"), str(tmp_path), str(out), str(megabytes)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MEMLIB_CACHE": str(out / "cache")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert not done.returncode and "memory ran out" not in done.stderr, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    limited, free = run(tmp_path / "limited", MEGABYTES), run(tmp_path / "free", 0)
    assert limited.pop("does not fit") and limited == free
    for name in ("report.json", "images.csv", "index.html"):
        for where in (name, f"model/{name}"):
            assert (tmp_path / "limited" / where).read_bytes() == (tmp_path / "free" / where).read_bytes()
    told, of_model = (
        json.loads((tmp_path / "limited" / f"{where}report.json").read_text()) for where in ("", "model/")
    )
    assert told["copies"]["k"] == 10 and told["duplicates"] == of_model["duplicates"] == {"exact": 10, "near": 0}
    assert of_model["membership"]["discoveries"]["n"] == 60 and of_model["extraction"]["n"] == 16


def test_rows_are_those_of_the_tensor(small):
    plain, kept = data.load(small), data.load(small, stored=True)
    x, y = plain.images, kept.images
    assert isinstance(y, stored.Stored) and y.shape == x.shape and y.dtype == x.dtype and y.nbytes == x.nbytes
    assert kept.fingerprint == plain.fingerprint and fingerprint(y) == fingerprint(x)
    mask, some = torch.arange(310) % 3 == 0, torch.randperm(310, generator=torch.Generator().manual_seed(0))[:99]
    for index in (5, -1, slice(3, 200, 7), slice(0), mask, some, some.view(3, 33), [1, 1, 2]):
        assert torch.equal(x[index], y[index])
    assert torch.equal(x[mask][:5], y.rows(mask)[:5]) and kept[some].fingerprint == plain[some].fingerprint
    assert torch.equal(torch.cat([x, x[:9]]), stored.joined(y, x[:9])[:]) and torch.equal(torch.stack(list(y)), x)
    assert stored.span(y) == stored.span(x) and torch.equal(stored.mean_row(y, torch.float64), x.double().mean(0))
    assert stored.deviation(y) == pytest.approx(float(x.double().std()), rel=1e-6)
    batches = zip(torch.utils.data.DataLoader(y, 64), x.split(64), strict=True)  # type: ignore
    assert all(torch.equal(one, other) for one, other in batches)
    assert [part.fingerprint for part in data.split(plain, {"a": 60, "b": 40}).values()] == [
        part.fingerprint for part in data.split(kept, {"a": 60, "b": 40}).values()
    ]


def alike(one, other):
    if isinstance(one, tuple):
        return all(map(alike, one, other))
    return torch.equal(one, other[:]) if isinstance(one, torch.Tensor) else one == other


def test_measures_and_features_are_those_of_the_tensor(small):
    x, y = data.load(small).images, data.load(small, stored=True).images
    near = (x[100:140] * 0.9).clamp(-1, 1)
    queries, other = torch.cat([x[200:230], near]), stored.joined(y.rows(slice(200, 230)), near)
    assert torch.equal(data.copies(x), data.copies(y))
    measures = (
        metrics.nearest, lambda a, b: metrics.nearest(a, b, 3), metrics.l2_ratio, metrics.authentic,
        metrics.precision_recall, metrics.density_coverage, membership.nearest_distance,
    )  # fmt: skip
    flat = [one.flatten(1) for one in (queries, other, x, y)]
    for measure in measures:
        found = measure(flat[0], flat[2])
        assert alike(found, measure(flat[0], flat[3])) and alike(found, measure(flat[1], flat[3]))
    assert alike(metrics.nearest(flat[2], flat[2], 2), metrics.nearest(flat[3], flat[3], 2))
    for a, b in ((features.centred(x), features.centred(y)), *[(features.half_whitened(x[:60]),) * 2]):
        assert torch.equal(a(x), b(y)[:])
        assert alike(metrics.closest(queries, a(queries), x, a(x)), metrics.closest(other, b(other), y, b(y)))
    descriptor = features.copies(x[:40], features.learn_copies(x[:40], steps=2))
    assert torch.equal(descriptor(x), descriptor(y))
    labels = torch.arange(310) % 2
    one, two = (features.classifier(rows, labels, steps=3, width=8) for rows in (x, y))
    assert torch.equal(one.embed(x), two.embed(y))


def test_only_what_is_missing_or_has_changed_is_read(small, monkeypatch):
    first, read = data.load(small, stored=True), []
    one = _shelf.decoded_files
    monkeypatch.setattr(_shelf, "decoded_files", lambda paths, *how: read.extend(paths) or one(paths, *how))
    assert data.load(small, stored=True).fingerprint == first.fingerprint and not read
    Image.fromarray(255 - LEVELS[50]).save(small / "050.png")
    changed = data.load(small, stored=True)
    assert len(read) == 40 and small / "050.png" in read
    assert changed.fingerprint == data.load(small).fingerprint != first.fingerprint
    with pytest.raises(Refused, match="load the set again"):  # the rows of the file that was replaced are gone
        first.images[50]
    stamp = (small / "060.png").stat()
    shutil.copy(small / "061.png", small / "060.png")
    os.utime(small / "060.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # a copy with an old date
    assert data.load(small, stored=True).fingerprint == data.load(small).fingerprint


def test_a_flipped_bit_is_noticed_and_read_again(small, monkeypatch):
    first, read = data.load(small, stored=True), []
    kept = sorted((Path(os.environ["MEMLIB_CACHE"]) / "images").glob("*/*.safetensors"))
    one = _shelf.decoded_files
    monkeypatch.setattr(_shelf, "decoded_files", lambda paths, *how: read.extend(paths) or one(paths, *how))
    for place, at in ((kept[0], -1), (kept[1], 4000), (kept[2], kept[2].stat().st_size // 2)):
        before, stamp = place.read_bytes(), place.stat()
        flipped = bytearray(before)
        flipped[at] ^= 1
        place.write_bytes(flipped)
        os.utime(place, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # a disk that garbles does not tell
        monkeypatch.setattr(_shelf, "_INTACT", set())  # as a new process has it
        read.clear()
        with pytest.warns(UserWarning, match=f"1 of 8 kept files of images are damaged, as .*{place.name}"):
            again = data.load(small, stored=True)
        assert place.read_bytes() == before and len(read) in (30, 40)
        assert again.fingerprint == first.fingerprint and fingerprint(again.images) == fingerprint(first.images[:])
    looked = []
    monkeypatch.setattr(_shelf, "_checksum", lambda *arrays: looked.append(arrays))
    assert data.load(small, stored=True).fingerprint == first.fingerprint and not looked  # once a process


def test_a_killed_reading_goes_on(tmp_path):
    folder = tmp_path / "images"
    drawn(folder, 3000, 64, 0)
    command = f"from memlib import data; data.load('folder:{folder}', stored=True)"
    slow = "import time; from memlib.data import _decoding as d; f = d._read\n"
    slow += "d._read = lambda *a: (time.sleep(0.003), f(*a))[1]\n"
    kept = tmp_path / "cache" / "images"
    process = subprocess.Popen([sys.executable, "-c", slow + command], env=os.environ | {"PYTHONPATH": str(ROOT)})
    while len(list(kept.glob("*/*.safetensors"))) < 2 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    there = {path: path.stat().st_mtime_ns for path in kept.glob("*/*.safetensors")}
    assert 2 <= len(there) < 5
    found = data.load(folder, stored=True)
    assert all(path.stat().st_mtime_ns == when for path, when in there.items())
    assert found.fingerprint == data.load(folder).fingerprint


def test_broken_files_and_sizes_are_told_as_ever(small):
    (small / "041.png").write_bytes(b"no image")
    for _ in range(2):  # what was kept without it refuses it too
        with pytest.raises(Refused, match="041.png' cannot be read"):
            data.load(small, stored=True)
        with pytest.warns(UserWarning, match="left out 1 of 310 images"):
            kept = data.load(f"folder:{small},skip_broken=yes,stored=yes")
    with pytest.warns(UserWarning, match="left out 1 of 310 images"):
        assert kept.fingerprint == data.load(f"folder:{small},skip_broken=yes").fingerprint
    assert kept.skipped == 1 and len(kept) == 309
    Image.fromarray(LEVELS[0][:8]).save(small / "041.png")
    with pytest.raises(Refused, match=r"differ in size: '0\d\d.png' is 16x16 and '041.png' is 16x8"):
        data.load(small, stored=True)
    for path in (Path(os.environ["MEMLIB_CACHE"]) / "images").glob("*/*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    (small / "041.png").unlink()
    Image.fromarray(LEVELS[41]).save(small / "041.png")
    with pytest.warns(UserWarning, match="7 of 8 kept files of images are damaged"):
        assert data.load(small, stored=True).fingerprint == data.load(small).fingerprint
    assert data.load("digits", stored=True).images.shape == (1797, 1, 8, 8)  # one file: in memory as ever
