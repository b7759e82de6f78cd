"""Where the slow parts of an audit are kept, so that a run that was killed goes on: shards below the cache folder."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from memlib import noise, sample
from memlib.audit.sources import Model, weights_of
from memlib.cache import Shards, fingerprint, stream
from memlib.cache.store import folder
from memlib.stored import Rows, Stored, choose, files

BATCH = 50


def name_of(model: Model) -> str:
    """A fingerprint of the weights, or of the denoiser as an object, and of how it is sampled."""
    net = weights_of(model.denoiser)
    own = net.state_dict() if net is not None else model.denoiser
    bound = getattr(model.denoiser, "keywords", {})
    coder = None if model.vae is None else model.vae.state_dict()
    return fingerprint(own, bound, model.shape, model.sigmas, coder)


def draw(model: Model, n: int, seed: int, budget: float | None, device: str) -> tuple[Rows, str]:
    """Samples (N, C, H, W) in [-1, 1] at 256 levels, on disk, and their key; sample i has the noise of its own number.

    Arguments:
        model: what is audited.
        n: samples, at most.
        seed: the first noise is that of seed * 10^9.
        budget: seconds after which no further batch is begun; None for no limit. What was drawn before counts.
        device: of the model.
    """
    key = fingerprint("samples", name_of(model), seed)

    def make(seeds: Tensor) -> Tensor:
        x = sample.start(model.sigmas, seeds, model.shape, device=device, dtype=torch.float32)
        return model.images(sample.ancestral(model.denoiser, x, model.sigmas, limit=model.limit))

    place, begun, first = folder() / "audit" / key[:32], time.monotonic(), seed * 10**9
    done = _before(place)
    settings = {"key": key, "batch": BATCH, "first": first, "dtype": torch.uint8, "title": "samples"}
    if budget is None:
        stream(make, max(n, done), place, **settings)
    else:
        stream(make, max(done, min(n, BATCH)), place, **settings)  # what a killed run left undone comes first
        done = max(done, min(n, BATCH))
        while done < n and time.monotonic() - begun < budget:
            done = min(n, done + BATCH)
            stream(make, done, place, **settings)
        n = min(n, done)
    shards = Shards(place)
    return choose(files(shards.verified()), slice(n)), key


def rows(title: str, make: Callable[[Tensor], Tensor], n: int, *names: object) -> Tensor:
    """make(positions) for the positions 0 .. n - 1, (n, K), kept by shards under the fingerprint of `names`.

    Arguments:
        title: of the progress bar.
        make: from positions (B,) to (B, K). Each row depends on its own position alone.
        n: rows.
        names: what the rows depend on.
    """
    return _shards(title, make, n, names, None).load()


def on_disk(
    title: str, make: Callable[[Tensor], Tensor], n: int, *names: object, dtype: torch.dtype | None = None
) -> Stored:
    """The same for float32 rows (n, *S) that are large, and stay on disk; uint8 keeps [-1, 1] at 256 levels."""
    return files(_shards(title, make, n, names, dtype).verified())


def _shards(
    title: str, make: Callable[[Tensor], Tensor], n: int, names: tuple[object, ...], dtype: torch.dtype | None
) -> Shards:
    key = fingerprint(title, n, names)

    def clamped(positions: Tensor) -> Tensor:
        return make(positions.clamp_max(n - 1))

    place = folder() / "audit" / key[:32]
    return stream(clamped, n, place, key=key, batch=min(BATCH, n), dtype=dtype, title=title)


def points(model: Model, images: Rows, device: str) -> Rows:
    """What a model denoises, (N, *S), of images (N, C, H, W): themselves, or their latents, kept on disk."""
    if model.vae is None:
        return images

    def make(positions: Tensor) -> Tensor:
        return model.points(images[positions].to(device)).float().cpu()

    return on_disk("latents", make, len(images), model.vae.state_dict(), images)


def fresh(positions: Tensor, seed: int) -> noise.Noise:
    """Standard normal noise of each position (B,), the same whatever else is in the batch."""
    return noise.seeded(positions + seed * 10**9)


def _before(place: Path) -> int:
    """How many samples a folder is for already; 0 too for a damaged one, which `stream` then refuses in a sentence."""
    try:
        return int(json.loads((place / "manifest.json").read_text(encoding="utf8"))["n"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0
