"""Reads, trains, embeds, finds copies and audits within a limit of memory, and prints hashes of what came out.

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

from memlib import data, features, losses, nets, noise, train
from memlib.audit import audit
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


def main(root: Path, out: Path, megabytes: int) -> None:
    """Do everything, and print what came out."""
    features.learn_copies = functools.partial(features.learn_copies, steps=3)
    with tempfile.TemporaryDirectory() as small:
        for name, count in (("what", 8), ("train", 20), ("held_out", 60)):
            drawn(Path(small) / name, count, 16, count)
        audited(Path(small), None)  # imports, and the workspace of products
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
    audited(root, out)
    if megabytes:
        try:
            data.load(root / "train")
        except MemoryError:
            found["does not fit"] = True
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
