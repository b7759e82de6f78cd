"""Samples on disk: the same bytes after a kill, whatever n, with what travels beside them, and in bounded memory."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
import torch

from memlib import analytic, denoiser, metrics, noise, sample
from memlib.cache import shards
from memlib.errors import Refused

ROOT = Path(__file__).parents[1]


def simple(seeds):
    """Images that name their seed, and a label."""
    return {"images": noise.seeded(seeds)(torch.empty(len(seeds), 1, 4, 4)), "labels": seeds % 7}


def contents(folder):
    """Every byte of every shard, by file name."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.safetensors"))}


def python(code, *arguments, **environment):
    """Start a Python process on `code`, from the root of the checkout."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=-1, stderr=-1, text=True)


RUN = """
import sys, time, torch
from memlib import analytic, noise, sample
from memlib.cache import shards
torch.set_num_threads(1)
model = analytic.Empirical(noise.seeded(range(50))(torch.empty(50, 1, 4, 4)))
sigmas = noise.karras(6, 0.02, 20.0)
def draw(seeds):
    fresh = noise.seeded(seeds)
    images = sample.ancestral(model, sigmas[0] * fresh(torch.empty(len(seeds), 1, 4, 4)), sigmas, 1.0, fresh)
    time.sleep(float(sys.argv[2]))
    drawn.append(seeds)
    return {"images": images, "labels": seeds % 7}
drawn = []
shards.stream(draw, 450, sys.argv[1], key="k", batch=50)
print(len(drawn))
"""


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert python(RUN, whole, 0).wait() == 0
    victim = python(RUN, cut, 0.3)
    deadline = time.monotonic() + 60
    while len(contents(cut)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.kill()
    assert victim.wait() == -9
    before = contents(cut)
    assert 3 <= len(before) < 9
    with pytest.raises(Refused, match=f"lacks {9 - len(before)} of 9 files"):
        shards.Shards(cut)
    (cut / f"{len(before):06d}.partial").write_bytes(b"half a fi")  # what a kill inside a write leaves
    kept = {name: (cut / name).stat().st_mtime_ns for name in before}
    assert python(RUN, cut, 0).wait() == 0
    assert contents(cut) == contents(whole) and len(contents(cut)) == 9
    assert {name: (cut / name).stat().st_mtime_ns for name in before} == kept  # not drawn a second time
    assert not list(cut.glob("*.partial"))


def test_a_write_that_fails_leaves_no_file_and_says_so(tmp_path, monkeypatch):
    shards.stream(simple, 20, tmp_path, key="k", batch=10)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Refused, match=r"cannot write .*manifest.json \(No space left on device\): make room"):
        shards.stream(simple, 40, tmp_path, key="k", batch=10)
    (tmp_path / "000001.safetensors").unlink()
    with pytest.raises(Refused, match=r"cannot write .*000001.safetensors \(No space left on device\): make room"):
        shards.stream(simple, 20, tmp_path, key="k", batch=10)
    assert list(contents(tmp_path)) == ["000000.safetensors"] and not list(tmp_path.glob("*.partial"))
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="cannot write"):
        shards.stream(simple, 20, tmp_path / "file" / "below", key="k")


def test_an_error_of_the_draw_stays_its_own(tmp_path):
    def broken(seeds):
        raise FileNotFoundError("no weights")

    with pytest.raises(FileNotFoundError, match="no weights"):
        shards.stream(broken, 20, tmp_path, key="k")


def truncated(path):
    """Cut off the end."""
    path.write_bytes(path.read_bytes()[:-3])


def flipped(path):
    """Turn one bit of a tensor, which the format itself does not notice."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def emptied(path):
    """Leave a file of no bytes."""
    path.write_bytes(b"")


def exchanged(path):
    """Put another shard in its place, undamaged."""
    path.write_bytes(path.with_name("000000.safetensors").read_bytes())


@pytest.mark.parametrize("damage", [truncated, flipped, emptied, exchanged, Path.unlink])
def test_a_damaged_shard_and_no_other_is_drawn_again(tmp_path, damage):
    shards.stream(simple, 45, tmp_path, key="k", batch=10)
    whole, drawn = contents(tmp_path), []
    damage(tmp_path / "000002.safetensors")
    assert contents(tmp_path) != whole

    def counted(seeds):
        drawn.append(seeds.tolist())
        return simple(seeds)

    shards.stream(counted, 45, tmp_path, key="k", batch=10)
    assert drawn == [list(range(20, 30))] and contents(tmp_path) == whole


@pytest.mark.parametrize("damage", [truncated, flipped, emptied])
def test_reading_a_damaged_shard_is_refused(tmp_path, damage):
    stored = shards.stream(simple, 45, tmp_path, key="k", batch=10)
    damage(tmp_path / "000002.safetensors")
    for read in (list, lambda s: s.load(), lambda s: s[25:26]):
        with pytest.raises(Refused, match="000002.safetensors is damaged: start shards.stream again"):
            read(stored)
    assert torch.equal(stored[:20]["seeds"], torch.arange(20))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": "other"}, "key='k', not 'other'"),
        ({"batch": 5}, "batch=10, not 5"),
        ({"first": 1}, "first=0, not 1"),
        ({"dtype": torch.float16}, "dtype=None, not 'torch.float16'"),
        ({"n": 10}, "20 samples, more than n=10"),
    ],
)
def test_other_settings_are_refused_and_touch_nothing(tmp_path, change, words):
    shards.stream(simple, 20, tmp_path, key="k", batch=10)
    before = contents(tmp_path), (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(Refused, match=words):
        shards.stream(simple, folder=tmp_path, **({"n": 20, "key": "k", "batch": 10} | change))
    assert (contents(tmp_path), (tmp_path / "manifest.json").read_bytes()) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 0}, "n=0"),
        ({"batch": 0}, "batch=0"),
        ({"dtype": torch.int32}, "torch.int32"),
        ({"draw": lambda seeds: torch.zeros(3, 1)}, r"images of shape \(3, 1\) for 10 seeds"),
        ({"draw": lambda seeds: {"images": torch.zeros(10, 1), "labels": torch.tensor(1)}}, r"labels of shape \(\)"),
        ({"draw": lambda seeds: {"pictures": torch.zeros(10, 1)}}, "call the images `images`"),
        ({"draw": lambda seeds: simple(seeds) | {"seeds": seeds}}, "leave `seeds`"),
        ({"draw": lambda seeds: torch.full((10, 1), torch.nan), "dtype": torch.uint8}, "not finite"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(tmp_path, change, words):
    with pytest.raises(Refused, match=words) as caught:
        shards.stream(**({"draw": simple, "n": 20, "folder": tmp_path, "key": "k", "batch": 10} | change))
    assert str(caught.value).count("\n") == 0


def test_foreign_folders_are_refused(tmp_path):
    with pytest.raises(Refused, match="holds no samples"):
        shards.Shards(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(Refused, match="files of another kind"):
        shards.stream(simple, 20, tmp_path, key="k")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(Refused, match="manifest.json is damaged"):
        shards.stream(simple, 20, tmp_path, key="k")


def test_a_sample_has_the_same_bits_whatever_n(tmp_path):
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    sizes = []

    def draw(seeds):
        sizes.append(len(seeds))
        x = noise.seeded(seeds)(torch.empty(len(seeds), 64))
        return (x @ weight).reshape(-1, 1, 8, 8)  # a matrix product rounds differently in a batch of another size

    short = shards.stream(draw, 2500, tmp_path / "short", key="k", batch=1000)
    long = shards.stream(draw, 3000, tmp_path / "long", key="k", batch=1000)
    assert sizes == [1000] * 6  # the last batch is padded
    assert [len(shard["images"]) for shard in short] == [1000, 1000, 500] and len(short) == 2500
    assert torch.equal(short.load(), long[:2500]["images"])
    grown = shards.stream(draw, 3000, tmp_path / "short", key="k", batch=1000)
    assert sizes == [1000] * 7  # only the file that was cut is drawn again
    assert contents(tmp_path / "short") == contents(tmp_path / "long") and len(grown) == 3000


def test_a_folder_whose_growth_was_cut_short_is_not_taken_for_whole(tmp_path):
    shards.stream(simple, 25, tmp_path, key="k", batch=10)

    def cut(seeds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shards.stream(cut, 30, tmp_path, key="k", batch=10)  # as many files, the last of them five rows short
    with pytest.raises(Refused, match="lacks 1 of 3 files, such as 000002.safetensors"):
        shards.Shards(tmp_path)
    grown = shards.stream(simple, 30, tmp_path, key="k", batch=10)
    assert torch.equal(grown.load(), simple(torch.arange(30))["images"])


def test_rows_are_read_alike_by_iteration_index_and_load(tmp_path):
    stored = shards.stream(simple, 45, tmp_path, key="name", batch=10, first=100)
    every = {name: torch.cat([shard[name] for shard in stored]) for name in ("images", "labels", "seeds")}
    expected = simple(torch.arange(100, 145))
    assert torch.equal(every["images"], expected["images"]) and torch.equal(every["labels"], expected["labels"])
    assert every["seeds"].tolist() == list(range(100, 145)) and every["labels"].dtype == torch.int64
    rows = torch.arange(45)
    some = [slice(3, 8), slice(8, 31), slice(None), slice(0, 45, 7), slice(-5, None), slice(7, 7), rows % 3 == 1]
    some += [torch.tensor([44, 0, 20, 20, -1]), torch.tensor([], dtype=torch.int64), 17, -1, torch.tensor([[1, 40]])]
    for index in some:
        read = stored[index]
        assert set(read) == set(every)
        for name, tensor in read.items():
            assert torch.equal(tensor, every[name][index]) and tensor.dtype == every[name].dtype
    for name in every:
        assert torch.equal(stored.load(name), every[name])
    with pytest.raises(Refused, match="images, labels, seeds, not 'weights'"):
        stored.load("weights")
    with pytest.raises(IndexError):
        stored[45]
    again = shards.Shards(tmp_path)
    assert (len(again), again.key) == (45, "name") and torch.equal(again.load(), every["images"])


def test_guided_samples_travel_with_their_labels_and_weights(tmp_path):
    """One class a sample, one weight a sample: at weight 1 the exact classifier must give images of the class."""
    means = 3 * noise.seeded(range(4))(torch.empty(4, 1, 2, 2))
    mixture = analytic.GaussianMixture(means, torch.full((4,), 0.25), std=0.1)
    sigmas, strengths = noise.karras(30, 0.01, 40.0), torch.tensor([0.0, 1.0])

    def draw(seeds):
        labels, weights = seeds % 4, strengths[(seeds // 4) % 2]
        fresh = noise.seeded(seeds)

        def log_p(x, sigma):
            square = (x[:, None] - means).square().flatten(2).sum(2)
            return (-square / (2 * (0.1**2 + sigma**2))).log_softmax(1).gather(1, labels[:, None])[:, 0]

        guided = denoiser.guided(mixture, log_p, weights)
        images = sample.ancestral(guided, sigmas[0] * fresh(torch.empty(len(seeds), 1, 2, 2)), sigmas)
        return {"images": images, "labels": labels, "weights": weights}

    stored = shards.stream(draw, 350, tmp_path, key="guided", batch=100)
    assert torch.equal(stored.load("labels"), torch.arange(350) % 4)
    guided = stored.load("weights") == 1
    assert 150 < guided.sum() < 200
    nearest = torch.cat([torch.cdist(shard["images"].flatten(1), means.flatten(1)).argmin(1) for shard in stored])
    right = nearest == stored.load("labels")
    assert right[guided].double().mean() > 0.95 and right[~guided].double().mean() < 0.5
    part = draw(torch.arange(100, 200))  # one batch, without the files
    assert torch.equal(stored[100:200]["images"], part["images"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_are_kept_in_the_type_asked_for(tmp_path, dtype):
    stored = shards.stream(simple, 25, tmp_path, key="k", batch=10, dtype=dtype)
    assert torch.equal(stored.load(), simple(torch.arange(25))["images"].to(dtype)) and stored.load().dtype == dtype
    assert stored.load("labels").dtype == torch.int64


def test_bytes_are_grey_levels(tmp_path):
    """uint8 is the inverse of x / 127.5 - 1, by which every source reads a file; values outside are clipped."""
    levels = numpy.arange(256, dtype=numpy.uint8)
    exact = torch.from_numpy(levels.astype(numpy.float32) / 127.5 - 1)
    near = exact + torch.linspace(-0.9, 0.9, 256) / 255  # within half a level
    far = torch.tensor([-7.0, -1.0, 1.0, 7.0, 0.0]).repeat(52)[:256]
    images = torch.stack([exact, near, far])
    stored = shards.stream(lambda seeds: images[seeds], 3, tmp_path, key="k", batch=3, dtype=torch.uint8).load()
    assert stored.dtype == torch.uint8
    assert numpy.array_equal(stored[0], levels) and numpy.array_equal(stored[1], levels)
    assert stored[2, :5].tolist() == [0, 0, 255, 255, 128]


def test_images_that_are_bytes_already_are_kept(tmp_path):
    """126 was taken for a value beyond 1, and kept as 255."""
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(10, -1, -1, -1)
    for name, dtype in (("uint8", torch.uint8), ("as made", None)):
        stored = shards.stream(lambda seeds: images, 10, tmp_path / name, key="k", batch=10, dtype=dtype)
        assert torch.equal(stored.load(), images)
    with pytest.raises(Refused, match=r"images of torch.int64: give x in \[-1, 1\], or levels"):
        shards.stream(lambda seeds: images.long(), 10, tmp_path / "long", key="k", batch=10, dtype=torch.uint8)


@pytest.mark.parametrize("most", [1.0, 255.0])
def test_images_without_a_dark_pixel_are_announced(tmp_path, most):
    images = most * torch.linspace(0, 1, 160).reshape(10, 1, 4, 4)
    with pytest.warns(UserWarning, match=rf"images from 0 to {most:g}, none below 0, .* levels from 128 on") as caught:
        shards.stream(lambda seeds: images, 10, tmp_path, key="k", batch=10, dtype=torch.uint8)
    assert caught[0].filename == __file__


def test_rows_of_a_file_with_one_flipped_bit_are_refused_whichever_are_asked_for(tmp_path):
    shards.stream(simple, 45, tmp_path, key="k", batch=10)
    flipped(tmp_path / "000002.safetensors")
    stored = shards.Shards(tmp_path)
    for index in (20, 29, slice(19, 21), torch.tensor([0, 44, 25]), [1, 22], numpy.array([23])):
        with pytest.raises(Refused, match="000002.safetensors is damaged"):
            stored[index]
    assert stored[[3, 1]]["seeds"].tolist() == stored[numpy.array([3, 1])]["seeds"].tolist() == [3, 1]
    with pytest.raises(Refused, match="000002.safetensors is damaged"):
        stored.load("labels")


def test_tensors_that_share_memory_or_lie_crosswise_are_kept(tmp_path):
    wide = torch.arange(40.0).reshape(4, 10).requires_grad_()
    drawn = {"images": wide.T, "same": wide.T, "part": wide.T[:, 0], "yes": wide.T[:, 0] > 3}
    stored = shards.stream(lambda seeds: drawn, 10, tmp_path, key="k", batch=10)
    assert all(torch.equal(stored.load(name), tensor) for name, tensor in drawn.items())


MILLION = """
import resource, sys, torch
from memlib import metrics
from memlib.cache import shards
torch.set_num_threads(1)
pattern = torch.linspace(-1, 1, 64).reshape(1, 8, 8)
train = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
def draw(seeds):
    return {"images": torch.cos(seeds[:, None, None, None] * 1e-3 * pattern), "labels": seeds % 10}
def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
options = dict(key="k", batch=10_000, dtype=torch.float16)
for shard in shards.stream(draw, 20_000, sys.argv[1] + "/few", **options):
    metrics.nearest(shard["images"].float().flatten(1), train)
before = resident()
stored = shards.stream(draw, 1_000_000, sys.argv[1] + "/many", **options)
stored = shards.stream(draw, 1_000_000, sys.argv[1] + "/many", **options)
best = torch.cat([metrics.nearest(shard["images"].float().flatten(1), train)[0] for shard in stored])
assert best.shape == (1_000_000, 1)
row = stored[torch.tensor([987_654])]
assert torch.equal(row["images"], draw(row["seeds"])["images"].half())
print(resident() - before)
"""


def test_a_million_images_fit_in_bounded_memory(tmp_path):
    """Drawn, checked again, scored and read by row: 140 MB on disk, 256 MB as drawn, never held at once."""
    process = python(MILLION, tmp_path, TQDM_DISABLE="1")
    out, error = process.communicate()
    assert process.returncode == 0, error
    size = sum(path.stat().st_size for path in (tmp_path / "many").glob("*.safetensors"))
    assert size > 140e6
    assert float(out) < 60  # MiB, of which 4 are the million scores


BAR = "import sys\nsys.argv[2:] = ['0']\n" + RUN


def test_the_progress_bar_obeys_the_environment(tmp_path):
    quiet = python(BAR, tmp_path, TQDM_DISABLE="1")
    assert quiet.communicate() == ("9\n", "") and quiet.returncode == 0
    loud = python(BAR, tmp_path, TQDM_DISABLE="")
    assert "sampling: 100%" in loud.communicate()[1]  # what was there counts as done


@pytest.mark.parametrize("count", [2, 3])
def test_runs_at_once_share_the_work(tmp_path, count):
    """Every file is drawn once, by one of them; the bytes are those of one run."""
    several = [python(RUN, tmp_path / "several", 0.2) for _ in range(count)]
    assert [process.wait() for process in several] == [0] * count
    assert python(RUN, tmp_path / "one", 0).wait() == 0
    assert contents(tmp_path / "several") == contents(tmp_path / "one")
    drawn = [int(process.communicate()[0]) for process in several]
    assert sum(drawn) == 9 and max(drawn) < 9
    manifest = json.loads((tmp_path / "several" / "manifest.json").read_text())
    assert manifest == {"key": "k", "batch": 50, "first": 0, "dtype": None, "n": 450}
    stored = shards.Shards(tmp_path / "several")
    train = noise.seeded(range(50))(torch.empty(50, 16))
    scored = torch.cat([metrics.nearest(shard["images"].flatten(1), train)[0] for shard in stored])
    assert (scored > 0.999).double().mean() > 0.99  # the perfect memorizer returns training points


def test_one_of_two_runs_is_killed_and_the_other_does_its_work(tmp_path):
    assert python(RUN, tmp_path / "one", 0).wait() == 0
    both = [python(RUN, tmp_path / "both", 0.4) for _ in range(2)]
    deadline = time.monotonic() + 60
    while len(contents(tmp_path / "both")) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    both[0].kill()
    assert both[1].wait() == 0
    assert contents(tmp_path / "both") == contents(tmp_path / "one")


def test_a_run_meets_another_that_asks_for_more(tmp_path):
    """The last file has the rows of the larger run, whoever writes it."""

    def draw(seeds):
        if len(list(tmp_path.glob("*.safetensors"))) == 0:  # while the first file is being made
            manifest = json.loads((tmp_path / "manifest.json").read_text())
            (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"n": 20}))
        return simple(seeds)

    assert len(shards.stream(draw, 15, tmp_path, key="k", batch=10)) == 20
    assert shards.Shards(tmp_path)[15:]["seeds"].tolist() == [15, 16, 17, 18, 19]


def test_scores_of_each_file_are_kept_beside_the_samples(tmp_path):
    stored = shards.stream(simple, 25, tmp_path / "samples", key="k", batch=10)
    calls = []

    def norms(shard):
        calls.append(len(shard["images"]))
        return {"norm": shard["images"].flatten(1).norm(dim=1)}

    scored = stored.map(norms, tmp_path / "norms", key="norms")
    assert calls == [10, 10, 5] and torch.equal(scored.load("norm"), stored.load().flatten(1).norm(dim=1))
    (tmp_path / "norms" / "000001.safetensors").unlink()
    again = stored.map(norms, tmp_path / "norms", key="norms")
    assert calls == [10, 10, 5, 10] and torch.equal(again[12]["seeds"], stored[12]["seeds"])
    with pytest.raises(Refused, match="holds samples of key='k norms', not 'k others'"):
        stored.map(norms, tmp_path / "norms", key="others")
    with pytest.raises(Refused, match=r"the function gave norm of shape \(3,\) for 10 seeds"):
        stored.map(lambda shard: {"norm": torch.zeros(3)}, tmp_path / "short", key="short")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory")])  # fmt: skip
def test_a_batch_that_does_not_fit_is_drawn_in_halves(tmp_path, error):
    calls = []

    def draw(seeds):
        calls.append(len(seeds))
        if len(seeds) > 3:
            raise error
        return simple(seeds)

    with pytest.warns(UserWarning, match="memory ran out: drawing 3 samples at a time") as caught:
        halved = shards.stream(draw, 20, tmp_path / "halved", key="k", batch=10)
    assert caught[-1].filename == __file__
    whole = shards.stream(simple, 20, tmp_path / "whole", key="k", batch=10)
    assert torch.equal(halved.load(), whole.load()) and torch.equal(halved.load("labels"), whole.load("labels"))
    assert calls == [10, 5, 3, 3, 3, 1, 3, 3, 3, 1]  # later batches start at what fits


def test_a_sample_that_does_not_fit_is_refused_and_other_errors_stay_their_own(tmp_path):
    def full(seeds):
        raise torch.OutOfMemoryError("CUDA out of memory")

    def wrong(seeds):
        raise RuntimeError("shapes do not match")

    with pytest.warns(UserWarning, match="memory ran out"), pytest.raises(Refused, match="not even one sample"):
        shards.stream(full, 4, tmp_path, key="k", batch=4)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        shards.stream(wrong, 4, tmp_path, key="k", batch=4)
