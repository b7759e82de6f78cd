"""Reads, trains, embeds, finds copies and audits images and a model within a limit of memory, and prints hashes of what
came out.

`python tests/limited_memory.py ROOT OUT MEGABYTES`: 0 is no limit, and then the sets are held in memory as ever. The
limit is of what the process writes to (RLIMIT_DATA), beyond what torch and a first small audit take.
"""

import functools
import json
import resource
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from PIL import Image

from memlib import data, features, losses, metrics, nets, noise, train
from memlib.audit import Model, audit, extraction, kept, members
from memlib.cache import fingerprint
from memlib.denoiser import pair
from memlib.random import choose, noise_from


def drawn(folder: Path, count: int, side: int, seed: int) -> None:
    """Images of 8 x 8 squares of one colour each, `side` pixels wide."""
    folder.mkdir(parents=True, exist_ok=True)
    levels = numpy.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), numpy.uint8)
    for number, small in enumerate(levels):
        picture = Image.fromarray(small).resize((side, side), Image.Resampling.NEAREST)
        picture.save(folder / f"{number:05}.bmp")


def taken() -> int:
    """Bytes that count against the limit."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    return int(line.split()[1]) * 1024


def trained(images: torch.Tensor) -> str:
    """The fingerprint of a network after ten steps on a set (N, C, H, W)."""
    torch.manual_seed(0)
    net = nets.Preconditioned(nets.ResidualMLP(tuple(images.shape[1:]), width=4, blocks=1), 0.5)

    def loss(net, generator):
        x0 = choose(images, 16, generator)
        return losses.denoising(*pair(net, x0, noise.lognormal(16, -0.5, 1.2, generator), noise_from(generator))).mean()

    return fingerprint(dict(train.train(net, loss, 10).state_dict()))


def audited(root: Path, out: Path | None) -> None:
    audit(root / "what", root / "train", root / "held_out", out, descriptor="copies", pictures=False)


def audited_model(root: Path, out: Path | None, side: int) -> None:
    """Samples are drawn from a small network, members scored under it, and its samples guided."""
    torch.manual_seed(0)
    net = nets.Preconditioned(nets.ResidualMLP((3, side, side), width=4, blocks=1), 0.5)
    model = Model(net, (3, side, side), noise.karras(3, sigma_max=10.0))
    audit(model, root / "train", root / "held_out", out, samples=40, descriptor="copies", extract=True)


def main(root: Path, out: Path, megabytes: int) -> None:
    """Do everything, and print what came out."""
    features.learn_copies = functools.partial(features.learn_copies, steps=3)
    # Short, and with small networks: the limit is one for sets.
    extraction.SAMPLES, extraction._STEPS, extraction._SMALL, members.MOST, kept.BATCH = 16, 3, 1 << 20, 60, 25
    nets.LabelMLP = functools.partial(nets.LabelMLP, width=8)
    with tempfile.TemporaryDirectory() as small:
        for name, count in (("what", 8), ("train", 20), ("held_out", 60)):
            drawn(Path(small) / name, count, 16, count)
        audited(Path(small), None)  # imports, and the workspace of products
        audited_model(Path(small), None, 16)
        trained(data.load(f"folder:{small}/train").images)
    found = {}
    if megabytes:
        limit = taken() + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    else:
        load = data.load
        data.load = lambda source, size=None, stored=False: load(source, size)
    images = data.load(root / "train", stored=True)
    found["set"] = images.fingerprint
    found["copies"] = fingerprint(data.copies(images.images))
    found["trained"] = trained(images.images)
    found["embedded"] = fingerprint(features.half_whitened(images.images[:30])(images.images))
    flat = images.images.flatten(1)
    found["matches"] = fingerprint(metrics.matches(flat[:20], flat, 0.2))
    audited(root, out)
    audited_model(root, out / "model", images.images.shape[-1])
    if megabytes:
        try:
            data.load(root / "train")
        except MemoryError:
            found["does not fit"] = True
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
