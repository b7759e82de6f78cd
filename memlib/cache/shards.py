"""Many samples, streamed to disk: one file per batch, written whole or not at all, so that a killed run can go on.

Sample i has the seed first + i. `draw` makes a batch of samples from their seeds alone, and other tensors that it
returns (labels, weights) are kept with the images. To measure the samples, read one file at a time:

    def draw(seeds):                                                               # (B,), int64
        fresh = noise.seeded(seeds)
        x = sigmas[0] * fresh(torch.empty(len(seeds), 3, 32, 32))
        return {"images": sample.ancestral(net, x, sigmas, eta=1, noise=fresh), "labels": seeds % 10}

    shards = stream(draw, 50_000, "samples", key=fingerprint(net, sigmas))         # of memlib.cache
    best = torch.cat([metrics.nearest(embed(shard["images"]), train)[0] for shard in shards])

Any number of processes may fill one folder: those of `accelerate launch`, jobs of a cluster's array, or a second run by
hand. Each claims one file at a time by a lock, so they need not know of each other, and one that is killed leaves its
file to the others. `Shards.map` works through the files of a folder in the same way.
"""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from memlib.cache._drawing import Draw, WithinMemory, kept_rows
from memlib.cache._files import UNREADABLE, checksum, count, damaged, manifest_of, opened, path_of, rows_in, tensors_of
from memlib.cache._filling import fill
from memlib.errors import Refused


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
    started again therefore leaves the same bytes as a run that was not. Runs that use one folder at the same time share
    the work, and each returns when all files are there. Their number does not change the bytes.

    Arguments:
        draw: makes the samples (B, *S) of B seeds, on any device. It always gets `batch` seeds, and surplus samples of
            the last batch are discarded, so the bits of a sample do not depend on n. A batch that does not fit into
            memory is drawn in halves, with a warning: seeds stay the same, and samples within rounding.
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
    for name, number in (("n", n), ("batch", batch), ("first", first)):
        if not isinstance(number, int):
            raise Refused(f"{name} is {number!r}: give a whole number")
    if n < 1 or batch < 1:
        raise Refused(f"need n >= 1 and batch >= 1, not n={n} and batch={batch}")
    if not -(2**62) <= first <= 2**62 or n + batch > 2**62:
        raise Refused(f"seeds are whole numbers of 63 bits, which first={first}, n={n}, batch={batch} exceed")
    if dtype is not None and not (dtype.is_floating_point or dtype == torch.uint8):
        raise Refused(f"images are kept in a floating type or as torch.uint8, not {dtype}: choose one of these")
    settings = {"key": key, "batch": batch, "first": first, "dtype": None if dtype is None else str(dtype)}
    within = WithinMemory(draw, batch)

    def make(k: int, seeds: Tensor) -> dict[str, Tensor]:
        return _cut(within(torch.arange(batch) + first + k * batch), batch, dtype, seeds)

    fill(Path(folder), settings, n, make, title)
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
            manifest = manifest_of(self.folder)
            self.n, self.batch, self.key, self.first = (manifest[name] for name in ("n", "batch", "key", "first"))
        except (OSError, Refused) as error:
            raise Refused(f"{self.folder} holds no samples: give a folder that shards.stream has filled") from error
        self._files = [path_of(self.folder, k) for k in range(count(self.n, self.batch))]
        self._verified: set[Path] = set()
        rows = [min(self.batch, self.n - k * self.batch) for k in range(len(self._files))]
        # A file is short if a later run asked for more samples and was stopped before it.
        if lost := [path for path, b in zip(self._files, rows, strict=True) if not path.exists() or rows_in(path) != b]:
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
            with opened(self._files[k]) as file:
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

    def verified(self) -> list[Path]:
        """The files, after a look at the checksum of each, to map the tensors in them; the rows are in order."""
        for path in self._files:
            if path not in self._verified:
                self._read(path)
        return list(self._files)

    def map(
        self,
        function: Callable[[dict[str, Tensor]], dict[str, Tensor]],
        folder: str | Path,
        *,
        key: str,
        title: str = "scoring",
    ) -> "Shards":
        """Apply a function to each file, and keep what it returns in a folder of as many files.

        As with `stream`, what is there already is kept, and several processes share the work:

            found = stored.map(lambda shard: {"features": embed(shard["images"])}, "features", key="sscd")

        Arguments:
            function: from the tensors of a file, (B, ...) each, to others, (B, ...) each, by name.
            folder: new, or from an earlier call of equal key on the same samples.
            key: names the function and all that it depends on.
            title: of the progress bar.

        Raises:
            Refused: if the folder holds something else, a row is missing, or the disk cannot be written.
        """
        settings = {"key": f"{self.key} {key}", "batch": self.batch, "first": self.first, "dtype": None}

        def make(k: int, seeds: Tensor) -> dict[str, Tensor]:
            return kept_rows(function(self._read(self._files[k])), seeds, len(seeds), "the function")

        fill(Path(folder), settings, self.n, make, title)
        return Shards(folder)

    def _read(self, path: Path) -> dict[str, Tensor]:
        """All tensors of a file, if their checksum is right."""
        try:
            tensors, stated = tensors_of(path)
            if path not in self._verified and stated != checksum(tensors):
                raise damaged(path)
        except UNREADABLE as error:
            raise damaged(path) from error
        self._verified.add(path)
        return tensors


def _cut(tensors: dict[str, Tensor], batch: int, dtype: torch.dtype | None, seeds: Tensor) -> dict[str, Tensor]:
    """The part of a batch that a file keeps, images in their type."""
    kept = kept_rows(tensors, seeds, batch, "draw")
    if dtype is not None:
        kept["images"] = _levels(kept["images"]) if dtype == torch.uint8 else kept["images"].to(dtype)
    return kept


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
            stacklevel=7,  # at the caller of stream
        )
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
