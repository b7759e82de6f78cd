"""The work that is disturbed. Each job goes on in its folder, and reports a digest of everything that it made.

A job runs in a forked process. `first` is the first optimiser step that a training still had to take, else None.
"""

import copy
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from memlib import analytic, metrics, nets, noise, sample, train
from memlib.cache import stream
from memlib.cache._fingerprint import code_fingerprint, fingerprint
from memlib.cli import studies
from memlib.papers.gaussian import study as gaussian
from memlib.run import Run

STEPS, SHARDS, SCORES = 40, 8, 8
TINY = {
    "n_points": 3, "n_samples": 100, "n_draws": 100, "train_steps": 10, "n_seeds": 2, "width": 4, "n_extracted": 600,
    "n_labelled": 100, "n_tested": 10, "batch": 8,
}  # fmt: skip
QUICK = ("G1", "G2", "G4", "G6")


def warm() -> None:
    """Do here, once, what every process would do first: torch's own late imports, and the hashes of the code."""
    import torch._dynamo  # noqa: F401 (which Adam would import)

    for name in ("faults.jobs", *[name for name in sys.modules if name.startswith("memlib.papers.gaussian.study.")]):
        code_fingerprint(name)
    for thing in (nearest, metrics.ams):
        fingerprint(thing)


def points() -> torch.Tensor:
    """Training points (32, 64)."""
    return torch.randn(32, 64, generator=torch.Generator().manual_seed(5))


def training(folder: Path, steps: int = STEPS) -> dict[str, Any]:
    """A small network with its running average, a checkpoint every other step."""
    torch.manual_seed(3)
    net = nets.Preconditioned(nets.ResidualMLP((64,), width=32), sigma_data=1.0)
    ema, rows, sigmas = copy.deepcopy(net), points(), noise.karras(20).float()

    def loss(net: torch.nn.Module, generator: torch.Generator) -> torch.Tensor:
        index = torch.randint(len(rows), (16,), generator=generator)
        level = sigmas[torch.randint(len(sigmas) - 1, (16,), generator=generator)]
        noisy = rows[index] + level[:, None] * torch.randn(16, 64, generator=generator)
        return (net(noisy, level) - rows[index]).square().mean()

    taken = [step.index for step in train.fit(net, loss, steps, ema=ema, checkpoint=folder / "training", every=2)]
    return {"digest": fingerprint(dict(net.state_dict()), dict(ema.state_dict())), "first": min(taken, default=steps)}


def sampling(folder: Path) -> dict[str, Any]:
    """Samples of the exact denoiser, streamed into shards."""
    denoiser, sigmas = analytic.Empirical(points()), noise.karras(24)

    def draw(seeds: torch.Tensor) -> torch.Tensor:
        return sample.heun(denoiser, sample.start(sigmas, seeds, (64,)), sigmas)

    shards = stream(draw, 16 * SHARDS - 3, folder / "samples", key="faults", batch=16)
    return {"digest": fingerprint([dict(shard) for shard in shards], bytes_of(folder / "samples")), "first": None}


def nearest(seed: int) -> dict[str, Any]:
    """Distances of 400 queries to their nearest of 400 rows."""
    rows = torch.randn(2, 400, 64, generator=torch.Generator().manual_seed(seed))
    distance, index = metrics.nearest(rows[0], rows[1])
    return {"distance": distance, "index": index, "copies": metrics.ams(distance, 0.2)}


def scoring(folder: Path) -> dict[str, Any]:
    """Scores of several sets, each kept in the cache."""
    os.environ["MEMLIB_CACHE"] = str(folder / "cache")
    found = Run("faults").each("nearest", nearest, [(seed,) for seed in range(SCORES)])
    told = [[score["distance"], score["index"], str(score["copies"])] for score in found]
    return {"digest": fingerprint(told), "first": None}


def studying(folder: Path, ids: tuple[str, ...] = QUICK) -> dict[str, Any]:
    """The study of chapter 1, as `memlib study gaussian` runs it, at tiny settings."""
    os.environ["MEMLIB_CACHE"] = str(folder / "cache")
    out = folder / "results"
    found = studies.run_study(gaussian, "fast", ids=ids, processes=1, values=TINY, out=out)
    tensors = (out / f"{gaussian.CHAPTER}.safetensors").read_bytes()
    page = json.loads((out / f"{gaussian.CHAPTER}.json").read_text(encoding="utf8"))
    told = json.dumps([found, page["claims"], page["tables"]], sort_keys=True)
    return {"digest": hashlib.sha256(tensors + told.encode()).hexdigest(), "first": None}


def whole_study(folder: Path) -> dict[str, Any]:
    """The same with the networks of G5."""
    return studying(folder, ())


JOBS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "training": training, "sampling": sampling, "scoring": scoring, "study": studying,
}  # fmt: skip


def bytes_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of results below a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.safetensors"))}


def kept(folder: Path) -> dict[str, tuple[int, int]]:
    """Every finished result below a folder but checkpoints, which grow: the inode and the time of its file."""
    files = [path for path in folder.rglob("*.safetensors") if path.parent.name not in ("training", "results")]
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def steps_of(folder: Path) -> int:
    """Steps in the checkpoint of a training below a folder; 0 if there is none."""
    for path in folder.glob("training/training.safetensors"):
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["memlib"])["step"]
    return 0
