"""Many samples, streamed to disk: one file per batch, written whole or not at all, so that a killed run can go on.

Sample i has the seed first + i. `draw` makes a batch of samples from their seeds alone, and other tensors that it
returns (labels, weights) are kept with the images. To measure the samples, read one file at a time:

    def draw(seeds):                                                               # (B,), int64
        fresh = noise.seeded(seeds)
        x = sigmas[0] * fresh(torch.empty(len(seeds), 3, 32, 32))
        return {"images": sample.ancestral(net, x, sigmas, eta=1, noise=fresh), "labels": seeds % 10}

    shards = stream(draw, 50_000, "samples", key=fingerprint(net, sigmas))         # of memlib.cache
    best = torch.cat([metrics.nearest(embed(shard["images"]), train)[0] for shard in shards])
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from memlib.cache.atomic import replace_file
from memlib.errors import Refused

Draw = Callable[[Tensor], Tensor | dict[str, Tensor]]
"""A function from seeds (B,) to images (B, *S), or to a dict of tensors (B, ...) that contains `images`."""

_UNREADABLE = (OSError, SafetensorError, KeyError, ValueError)  # absent, truncated or damaged


def stream(
    draw: Draw,
    n: int,
    folder: str | Path,
    *,
    key: str,
    batch: int = 1000,
    first: int = 0,
    dtype: torch.dtype | None = None,
    title: str = "sampling",
) -> "Shards":
    """Make n samples, of seeds first .. first + n - 1, and write them to `folder`, `batch` samples to a file.

    Files that are already there are kept if their checksum is right, and made again if not. A run that was killed and
    started again therefore leaves the same bytes as a run that was not. If two runs use one folder, the second waits.

    Arguments:
        draw: makes the samples (B, *S) of B seeds, on any device. It always gets `batch` seeds, and surplus samples of
            the last batch are discarded, so the bits of a sample do not depend on n.
        n: samples. A later run may ask for more, and goes on where this one ended.
        folder: new, or from a run of equal key, batch, first and dtype.
        key: names the samples, such as a fingerprint of the network and the settings.
        batch: samples to a file.
        first: the first seed.
        dtype: of the kept images: None as made, a floating type, or torch.uint8, which keeps x in [-1, 1], clipped, as
            round(127.5 (x + 1)). Then `shard["images"] / 127.5 - 1` is their value. Images that are uint8 already are
            kept as they are; a warning tells of a batch without a value below 0, which may lie in [0, 1].
        title: of the progress bar.

    Raises:
        Refused: if the settings make no sense or differ from those of the folder, `draw` does not return one row per
            seed, or the disk cannot be written.
    """
    if n < 1 or batch < 1:
        raise Refused(f"need n >= 1 and batch >= 1, not n={n} and batch={batch}")
    if dtype is not None and not (dtype.is_floating_point or dtype == torch.uint8):
        raise Refused(f"images are kept in a floating type or as torch.uint8, not {dtype}: choose one of these")
    folder = Path(folder)
    settings = {"key": key, "batch": batch, "first": first, "dtype": None if dtype is None else str(dtype)}
    with _locked(folder):
        _agree(folder, settings, n)
        todo = [k for k in range(_count(n, batch)) if not _intact(_path(folder, k), _seeds(k, n, batch, first))]
        missing = sum(len(_seeds(k, n, batch, first)) for k in todo)
        with tqdm(total=n, initial=n - missing, desc=title, unit="sample") as bar:
            for k in todo:
                seeds = _seeds(k, n, batch, first)
                padded = torch.arange(batch) + first + k * batch
                tensors = _cut(draw(padded), batch, dtype, seeds)
                _replace(_path(folder, k), partial(save_file, tensors, metadata={"checksum": _checksum(tensors)}))
                bar.update(len(seeds))
    return Shards(folder)


class Shards:
    """The n samples in a folder that `stream` filled. They stay on disk and are read in parts.

    Iteration gives one dict of tensors (B, ...) per file, in order of the seeds: images, seeds and the other tensors of
    `draw`. An index, a slice or a tensor (N,) of indices reads those rows only. `key` is that of `stream`. The checksum
    of a file is verified when it is first read, and a damaged one is refused.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a folder.

        Raises:
            Refused: if the folder has no samples, or not yet all of them.
        """
        self.folder = Path(folder)
        try:
            manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf8"))
            self.n, self.batch, self.key = (manifest[name] for name in ("n", "batch", "key"))
        except (OSError, ValueError, KeyError) as error:
            raise Refused(f"{self.folder} holds no samples: give a folder that shards.stream has filled") from error
        self._files = [_path(self.folder, k) for k in range(_count(self.n, self.batch))]
        self._verified: set[Path] = set()
        rows = [min(self.batch, self.n - k * self.batch) for k in range(len(self._files))]
        # A file is short if a later run asked for more samples and was stopped before it.
        if lost := [path for path, b in zip(self._files, rows, strict=True) if not path.exists() or _rows(path) != b]:
            raise Refused(
                f"{self.folder} lacks {len(lost)} of {len(self._files)} files, such as {lost[0].name}: start "
                "shards.stream again with the same settings to draw them"
            )

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for path in self._files:
            yield self._read(path)

    def __getitem__(self, index: int | slice | Tensor) -> dict[str, Tensor]:
        rows = torch.arange(self.n)[index.cpu() if isinstance(index, Tensor) else index]
        home, result = rows // self.batch, {}
        for k in home.unique().tolist() or [0]:
            here = home == k
            local = rows[here] - k * self.batch
            low, high = (int(local.min()), int(local.max()) + 1) if len(local) else (0, 0)
            if self._files[k] not in self._verified:
                self._read(self._files[k])
            with _opened(self._files[k]) as file:
                for name in file.keys():  # noqa: SIM118
                    part = file.get_slice(name)[low:high]
                    result.setdefault(name, part.new_empty(rows.shape + part.shape[1:]))[here] = part[local - low]
        return result

    def load(self, name: str = "images") -> Tensor:
        """One tensor of all samples, (n, ...), in memory. Raises Refused if the files have no tensor of this name."""
        result, row = torch.empty(0), 0
        for path in self._files:
            tensors = self._read(path)
            if name not in tensors:
                held = ", ".join(sorted(tensors))
                raise Refused(f"{self.folder} holds {held}, not {name!r}: choose among these")
            part = tensors[name]
            result = result if row else part.new_empty((self.n, *part.shape[1:]))
            result[row : row + len(part)] = part
            row += len(part)
        return result

    def _read(self, path: Path) -> dict[str, Tensor]:
        """All tensors of a file, if their checksum is right."""
        try:
            tensors, checksum = _tensors(path)
            if path not in self._verified and checksum != _checksum(tensors):
                raise _damaged(path)
        except _UNREADABLE as error:
            raise _damaged(path) from error
        self._verified.add(path)
        return tensors


def _count(n: int, batch: int) -> int:
    return -(-n // batch)


def _path(folder: Path, k: int) -> Path:
    return folder / f"{k:06d}.safetensors"


def _seeds(k: int, n: int, batch: int, first: int) -> Tensor:
    """The seeds of the k-th file."""
    return torch.arange(k * batch, min(n, (k + 1) * batch)) + first


def _locked(folder: Path) -> FileLock:
    """A lock on the folder, which is created if it does not exist."""
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock:  # here and not in the caller, whose own OSErrors are its own
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error
    return lock


def _unwritable(path: Path, error: Exception) -> Refused:
    why = getattr(error, "strerror", None) or error
    return Refused(f"cannot write {path} ({why}): make room or take another folder, then start again to go on")


def _agree(folder: Path, settings: dict, n: int) -> None:
    """Compare with the folder's manifest, or write one. Raises Refused where they differ."""
    manifest = folder / "manifest.json"
    try:
        before = json.loads(manifest.read_text(encoding="utf8"))
    except FileNotFoundError:
        if any(folder.glob("*.safetensors")):
            raise Refused(f"{folder} holds files of another kind: give shards.stream a new folder") from None
        before = settings | {"n": 0}
    except ValueError as error:
        raise Refused(f"{manifest} is damaged: delete the folder to draw anew") from error
    for name, new in settings.items():
        if (old := before.get(name)) != new:
            raise Refused(f"{folder} holds samples of {name}={old!r}, not {new!r}: give another folder or delete it")
    if n < before["n"]:
        raise Refused(f"{folder} is for {before['n']} samples, more than n={n}: take a slice of shards.Shards(folder)")
    if n > before["n"]:
        _replace(manifest, lambda path: path.write_text(json.dumps(settings | {"n": n}, indent=1), encoding="utf8"))


def _cut(drawn: Tensor | dict[str, Tensor], batch: int, dtype: torch.dtype | None, seeds: Tensor) -> dict[str, Tensor]:
    """The part of a batch that a file keeps: a row for each of `seeds`, on the CPU."""
    tensors = drawn if isinstance(drawn, dict) else {"images": drawn}
    if "images" not in tensors or "seeds" in tensors:
        named = ", ".join(tensors)
        raise Refused(f"draw gave tensors named {named}: call the images `images` and leave `seeds` to shards.stream")
    for name, tensor in tensors.items():
        if tensor.ndim == 0 or len(tensor) != batch:
            shape = tuple(tensor.shape)
            raise Refused(f"draw gave {name} of shape {shape} for {batch} seeds: give one row a seed")
    # Copies, since safetensors refuses tensors that share memory.
    kept = {name: t[: len(seeds)].detach().cpu().contiguous().clone() for name, t in tensors.items()}
    if dtype is not None:
        kept["images"] = _levels(kept["images"]) if dtype == torch.uint8 else kept["images"].to(dtype)
    return kept | {"seeds": seeds}


def _levels(images: Tensor) -> Tensor:
    """Images (B, *S) in [-1, 1], clipped, as uint8; those that are uint8 stay as they are."""
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise Refused(f"draw gave images of {images.dtype}: give x in [-1, 1], or levels from 0 to 255 as uint8")
    if not (images.numel() and images.isfinite().all()):
        raise Refused("draw gave images that are empty or not finite, which uint8 would hide: look at the sampler")
    low, high = images.aminmax()
    if 0 <= low < high:
        warnings.warn(
            f"draw gave images from {low:g} to {high:g}, none below 0, which uint8 keeps as levels from 128 on: give x "
            "in [-1, 1], such as 2 x - 1",
            stacklevel=4,  # at the caller of stream
        )
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """`replace_file`, with Refused if the disk cannot be written."""
    try:
        replace_file(path, write)
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from error


def _checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _intact(path: Path, seeds: Tensor) -> bool:
    """Whether the file exists, is undamaged and has these seeds."""
    try:
        tensors, checksum = _tensors(path)
        return torch.equal(tensors["seeds"], seeds) and checksum == _checksum(tensors)
    except _UNREADABLE:
        return False


def _rows(path: Path) -> int:
    with _opened(path) as file:
        return file.get_slice("seeds").get_shape()[0]


def _tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file, and the checksum that it states."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return tensors, file.metadata()["checksum"]


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except _UNREADABLE as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> Refused:
    return Refused(f"{path} is damaged: start shards.stream again with the same settings to draw it anew")
