"""How the cost of each path of the core grows: four sizes, a process for each, written to results/growth.json.

`python -m benchmarks growth` from the root of the repository; names of paths run those alone and keep the other rows.
A row: path, what is counted, sizes, seconds of processor time, peak memory above what the inputs hold, the slopes of
both against the size on log-log axes, and the slope expected. The slope of the time is fitted to the three largest
sizes: the smallest may be all overhead.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "results" / "growth.json"
REPEATS = 3
Call = Callable[[], object]


class Growing(NamedTuple):
    """A path: what is counted, four sizes, the slope expected, and how to prepare a call of one size."""

    counted: str
    sizes: list[int]
    expected: float
    prepare: Callable[[int], Call]


def rows(n: int, width: int = 256, seed: int = 0):
    """Features (n, width)."""
    import torch

    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def images(n: int, side: int = 16):
    """Images (n, 1, side, side) in [-1, 1]."""
    return rows(n, side * side).view(n, 1, side, side).tanh()


def between(measure: str) -> Callable[[int], Call]:
    """A measure of memlib.metrics of two sets of n features."""

    def prepare(n: int) -> Call:
        from memlib import metrics

        a, b, function = rows(n), rows(n, seed=1), getattr(metrics, measure)
        further = {"matches": (0.3,), "mmd2": (16.0,)}.get(measure, ())
        return lambda: function(a, b, *further)

    return prepare


def folder_of(n: int) -> str:
    """A folder of n files of 64 pixels a side."""
    import numpy
    from PIL import Image

    folder = tempfile.mkdtemp()
    levels = numpy.random.default_rng(0).integers(0, 256, (n, 64, 64, 3), numpy.uint8)
    for k, pixels in enumerate(levels):
        Image.fromarray(pixels).save(f"{folder}/{k:06}.jpg")
    return folder


def reading(n: int) -> Call:
    """n files of 64 pixels a side, resampled to 32."""
    from memlib import data

    folder = folder_of(n)
    return lambda: data.load(f"folder:{folder}", 32)


def on_disk(n: int, side: int = 32):
    """n images of `side` pixels in files of 8 bits, as `data.load(stored=True)` keeps them."""
    import torch
    from safetensors.torch import save_file

    from memlib import stored

    folder, places = tempfile.mkdtemp(), []
    for first in range(0, n, 2000):
        levels = torch.randint(
            0, 256, (min(2000, n - first), 3, side, side), dtype=torch.uint8,
            generator=torch.Generator().manual_seed(first),
        )  # fmt: skip
        places.append(f"{folder}/{first:07}.safetensors")
        save_file({"images": levels}, places[-1])
    return stored.files(places)


def reading_to_disk(n: int) -> Call:
    """n files of 64 pixels a side, resampled to 32 and kept on disk; each time anew."""
    from memlib import data

    folder, home = folder_of(n), tempfile.mkdtemp()
    take = iter(range(100))  # a cache for each repetition: what is there is not read again

    def read():
        os.environ["MEMLIB_CACHE"] = f"{home}/{next(take)}"
        return data.load(f"folder:{folder}", 32, stored=True)

    return read


def passing(n: int) -> Call:
    """One pass over n images on disk, in parts."""
    from memlib import stored

    given = on_disk(n)
    return lambda: stored.span(given)


def duplicates_on_disk(n: int) -> Call:
    """Exact copies among n images on disk."""
    from memlib import data

    given = on_disk(n)
    return lambda: data.copies(given, near=0)


def embedding_on_disk(n: int) -> Call:
    """n images on disk, by 40 features."""
    import torch

    from memlib import features

    given = on_disk(n)
    embed = features.half_whitened(given[torch.arange(41)])
    return lambda: embed(given)


def nearest_on_disk(n: int) -> Call:
    """The pixels of 20 images among those of n on disk."""
    from memlib import metrics

    given = on_disk(n).flatten(1)
    return lambda: metrics.l2_ratio(given[:20], given)


def duplicates(n: int) -> Call:
    """Exact and near copies among n images that vary as drawn faces do, along few directions."""
    from memlib import data

    flat = data.load("faces:n=1000", 16).images.flatten(1)
    weights = rows(n, len(flat)) / len(flat) ** 0.5
    given = (flat.mean(0) + weights @ (flat - flat.mean(0))).view(n, -1, 16, 16)
    return lambda: data.copies(given)


def embedding(n: int) -> Call:
    """n images, by the features of 2,000 others."""
    from memlib import features

    embed, given = features.half_whitened(images(2000)), images(n)
    return lambda: embed(given)


def groups(n: int) -> Call:
    """n samples, half of which are one image."""
    from memlib import metrics

    given = rows(n)
    given[::2] = given[:1] + 0.01 * given[::2]
    return lambda: metrics.cliques(given, 0.9)


def network():
    """A residual network on 64 coordinates."""
    from memlib import nets

    return nets.Preconditioned(nets.ResidualMLP((64,), width=64), sigma_data=1.0)


def sampling(n: int) -> Call:
    """n samples of 10 Heun steps, in batches of 1,000."""
    from memlib import noise, sample

    net, sigmas = network(), noise.karras(11)
    batches = [range(first, min(first + 1000, n)) for first in range(0, n, 1000)]
    return lambda: [sample.heun(net, sample.start(sigmas, batch, (64,)), sigmas) for batch in batches]


def sharding(n: int) -> Call:
    """n samples written in shards of 1,000."""
    from memlib import cache, noise

    folder = tempfile.mkdtemp()
    take = iter(range(100))  # a folder for each repetition: what is there is not made again

    def draw(seeds):
        import torch

        return noise.seeded(seeds)(torch.empty(len(seeds), 64))

    return lambda: cache.stream(draw, n, f"{folder}/{next(take)}", key="growth")


def likelihood(n: int) -> Call:
    """The likelihood of n points, exact trace."""
    from memlib import likelihood as room
    from memlib.analytic import Empirical

    denoiser, points = Empirical(rows(64, 8)), rows(n, 8, seed=1)
    return lambda: room.log_likelihood(denoiser, points, 0.5, 20.0, terminal=room.prior(20.0), tol=1e-3)


def training(n: int) -> Call:
    """n optimiser steps."""
    from memlib import noise, train

    points, sigmas = rows(512, 64), noise.karras(20).float()

    def loss(net, generator):
        import torch

        index = torch.randint(len(points), (64,), generator=generator)
        level = sigmas[torch.randint(len(sigmas) - 1, (64,), generator=generator)]
        noisy = points[index] + level[:, None] * torch.randn(64, 64, generator=generator)
        return (net(noisy, level) - points[index]).square().mean()

    return lambda: train.train(network(), loss, n)


def stacking(n: int) -> Call:
    """One pass of n networks trained side by side."""
    import torch

    from memlib import nets

    stack, x = nets.Stack([network() for _ in range(n)]), rows(64, 64).repeat(n, 1)
    return lambda: [stack(x, torch.tensor(1.0)).sum().backward() for _ in range(10)]


def empirical(n: int) -> Call:
    """The exact denoiser of n points, at 32 places."""
    from memlib.analytic import Empirical

    denoiser, x = Empirical(rows(n)), 5 * rows(32, seed=1)
    return lambda: denoiser(x, 5.0)


def likelihood_ratio(n: int) -> Call:
    """LiRA of n images with 16 shadow models."""
    import torch

    from memlib import membership

    scores, inside = rows(17, n), torch.arange(17)[:, None] % 2 == torch.arange(n) % 2
    return lambda: membership.lira(scores[0], scores[1:], inside[1:])


EACH, PAIRS = "N", "N = M"
PATHS = {
    "reading a folder": Growing(EACH, [250, 500, 1000, 2000], 1, reading),
    "reading to disk": Growing(EACH, [250, 500, 1000, 2000], 1, reading_to_disk),
    "a pass over images on disk": Growing(EACH, [8000, 16_000, 32_000, 64_000], 1, passing),
    "data.copies on disk, exact": Growing(EACH, [8000, 16_000, 32_000, 64_000], 1, duplicates_on_disk),
    "features.half_whitened on disk": Growing(EACH, [8000, 16_000, 32_000, 64_000], 1, embedding_on_disk),
    "metrics.l2_ratio to images on disk": Growing("M, N = 20", [8000, 16_000, 32_000, 64_000], 1, nearest_on_disk),
    "data.copies": Growing(EACH, [4000, 8000, 16_000, 32_000], 2, duplicates),
    "features.half_whitened": Growing(EACH, [4000, 8000, 16_000, 32_000], 1, embedding),
    "metrics.nearest": Growing(PAIRS, [2000, 4000, 8000, 16_000], 2, between("nearest")),
    "metrics.matches": Growing(PAIRS, [2000, 4000, 8000, 16_000], 2, between("matches")),
    "metrics.cliques, half one image": Growing(EACH, [2000, 4000, 8000, 16_000], 2, groups),
    "metrics.l2_ratio": Growing(PAIRS, [2000, 4000, 8000, 16_000], 2, between("l2_ratio")),
    "metrics.precision_recall": Growing(PAIRS, [2000, 4000, 8000, 16_000], 2, between("precision_recall")),
    "metrics.density_coverage": Growing(PAIRS, [2000, 4000, 8000, 16_000], 2, between("density_coverage")),
    "metrics.frechet_distance": Growing(PAIRS, [8000, 16_000, 32_000, 64_000], 1, between("frechet_distance")),
    "metrics.mmd2": Growing(PAIRS, [1000, 2000, 4000, 8000], 2, between("mmd2")),
    "membership.lira": Growing(EACH, [20_000, 40_000, 80_000, 160_000], 1, likelihood_ratio),
    "analytic.Empirical": Growing("points", [10_000, 20_000, 40_000, 80_000], 1, empirical),
    "likelihood.log_likelihood": Growing(EACH, [250, 500, 1000, 2000], 1, likelihood),
    "sample.heun": Growing(EACH, [2000, 4000, 8000, 16_000], 1, sampling),
    "cache.stream": Growing(EACH, [4000, 8000, 16_000, 32_000], 1, sharding),
    "train.train": Growing("steps", [200, 400, 800, 1600], 1, training),
    "nets.Stack": Growing("networks", [16, 32, 64, 128], 1, stacking),
}


def measured(name: str, size: int) -> dict:
    """Seconds of processor time of one call, the least of several, and its peak of memory in MB."""
    import torch

    torch.set_num_threads(1)
    call = PATHS[name].prepare(size)
    before = _resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    times = []
    for turn in range(REPEATS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
        if not turn:
            peak = _resident("VmHWM") - before
    return {"seconds": min(times), "peak_mb": max(peak, 0.1)}


def _resident(which: str = "VmRSS") -> float:
    """Memory of this process in MB: now, or at its peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1024


def slope(sizes: list[int], values: list[float]) -> float:
    """Of log(values) against log(sizes), by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    rise = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return rise / sum((a - middle_x) ** 2 for a in x)


def grown(name: str) -> dict:
    """The row of one path."""
    path, found = PATHS[name], []
    for size in path.sizes:
        command = [sys.executable, __file__, "--one", name, str(size)]
        environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment |= {"TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}
        printed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
        found.append(json.loads(printed.splitlines()[-1]))
    seconds, peaks = ([float(f"{one[key]:.3g}") for one in found] for key in ("seconds", "peak_mb"))
    return {
        "path": name, "counted": path.counted, "sizes": path.sizes, "seconds": seconds, "peak_mb": peaks,
        "exponent": round(slope(path.sizes[1:], seconds[1:]), 2), "expected": path.expected,
        "memory_exponent": round(slope(path.sizes[1:], peaks[1:]), 2),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure what is named, or everything, and write the rows as they come."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth")
    parser.add_argument("paths", nargs="*", metavar="PATH")
    parser.add_argument("--one", nargs=2, metavar=("PATH", "SIZE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.one:
        print(json.dumps(measured(chosen.one[0], int(chosen.one[1]))))
        return 0
    if unknown := set(chosen.paths) - set(PATHS):
        parser.error(f"no path is called {', '.join(sorted(unknown))}: {', '.join(PATHS)}")
    before = json.loads(RESULT.read_text(encoding="utf8")) if RESULT.exists() else []
    found = {row["path"]: row for row in before if row["path"] in PATHS}
    for name in chosen.paths or PATHS:
        found[name] = row = grown(name)
        slopes = f"time^{row['exponent']:.2f} ({row['expected']:g} expected), memory^{row['memory_exponent']:.2f}"
        print(f"{name:34} {slopes}, {row['seconds'][-1]:.2f} s, {row['peak_mb'][-1]:.0f} MB", flush=True)
        lines = [json.dumps(found[path]) for path in PATHS if path in found]
        RESULT.write_text("[\n  " + ",\n  ".join(lines) + "\n]\n", encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
