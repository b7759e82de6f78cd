"""The work that is disturbed. Each job goes on in its folder, and reports a digest of everything that it made.

A job runs in a forked process. `first` is the first optimiser step that a training still had to take, else None.
"""

import copy
import functools
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import safe_open

from memlib import analytic, audit, data, metrics, nets, noise, sample, train
from memlib.cache import stream
from memlib.cache._fingerprint import code_fingerprint, fingerprint
from memlib.cli import studies
from memlib.papers.gaussian import study as gaussian
from memlib.papers.learning_rate import study as learning_rate
from memlib.run import Run

STEPS, SHARDS, SCORES = 40, 8, 8
TINY = {
    "n_points": 3, "n_samples": 100, "n_draws": 100, "train_steps": 10, "n_seeds": 2, "width": 4, "n_extracted": 600,
    "n_labelled": 100, "n_tested": 10, "batch": 8,
}  # fmt: skip
LINE = {"n_runs": 2, "n_levels": 4, "width": 16, "steps": 600}
QUICK = ("G1", "G2", "G4", "G6")


def warm() -> None:
    """Do here, once, what every process would do first: torch's own late imports, and the hashes of the code."""
    import torch._dynamo  # noqa: F401 (which Adam would import)

    for name in ("faults.jobs", *[name for name in sys.modules if name.startswith("memlib.papers.gaussian.study.")]):
        code_fingerprint(name)
    for thing in (nearest, metrics.ams):
        fingerprint(thing)
    audited()


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
    return _study(folder, gaussian, TINY, ids, 1)


def _study(
    folder: Path, study: ModuleType, values: dict[str, Any], ids: tuple[str, ...], processes: int
) -> dict[str, Any]:
    os.environ["MEMLIB_CACHE"] = str(folder / "cache")
    out = folder / "results"
    found = studies.run_study(study, "fast", ids=ids, processes=processes, values=values, out=out)
    tensors = (out / f"{study.CHAPTER}.safetensors").read_bytes()
    page = json.loads((out / f"{study.CHAPTER}.json").read_text(encoding="utf8"))
    told = json.dumps([found, page["claims"], page["tables"]], sort_keys=True)
    return {"digest": hashlib.sha256(tensors + told.encode()).hexdigest(), "first": None}


def whole_study(folder: Path) -> dict[str, Any]:
    """The same with the networks of G5."""
    return studying(folder, ())


def pooled(folder: Path) -> dict[str, Any]:
    """The sweeps of chapter 5 behind two claims, in two worker processes."""
    main = sys.modules["__main__"]
    main.__spec__ = None  # a worker would import this whole command first
    vars(main).pop("__file__", None)
    return _study(folder, learning_rate, LINE, ("L2", "L5"), 2)


@functools.cache
def audited() -> tempfile.TemporaryDirectory:
    """A folder with a diffusers model of random weights, and the images of its audit, for all cases of this process."""
    from diffusers import DDPMScheduler, UNet2DModel
    from PIL import Image

    place = tempfile.TemporaryDirectory(prefix="memlib-audited-")
    torch.manual_seed(4)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "layers_per_block": 1}
    widths = {"block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4}
    net = UNet2DModel(sample_size=8, in_channels=3, out_channels=3, **blocks, **widths)
    net.save_pretrained(f"{place.name}/model/unet")
    DDPMScheduler(num_train_timesteps=40, beta_end=0.3).save_pretrained(f"{place.name}/model/scheduler")
    images = ((data.load("faces:n=120,seed=3", 16).images[:, :, ::2, ::2] + 1) * 127.5).round().byte()
    for part, some in {"train": images[:60], "held_out": images[60:]}.items():
        Path(place.name, part).mkdir()
        for number, image in enumerate(some):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(f"{place.name}/{part}/{number:03d}.png")
    return place


def auditing(folder: Path) -> dict[str, Any]:
    """`memlib audit` of a small model: samples, descriptors and statistics in shards, and a report."""
    os.environ["MEMLIB_CACHE"] = str(folder / "cache")
    given, out = Path(audited().name), folder / "report"
    audit.audit(given / "model", given / "train", given / "held_out", out, samples=220, steps=6)
    files = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    return {"digest": fingerprint(files), "first": None}


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
