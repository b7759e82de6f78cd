"""Filling a folder of files by any number of processes: each claims one file at a time by a lock."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from memlib.cache._files import checksum, count, intact, manifest_of, path_of, seeds_of
from memlib.cache.atomic import replace_file, unwritable
from memlib.errors import Refused

_PAUSE = 0.1  # seconds before a process looks again at files that others are making


def fill(folder: Path, settings: dict, n: int, make: Callable[[int, Tensor], dict[str, Tensor]], title: str) -> None:
    """Fill a folder with the files that it lacks, file k with `make(k, seeds)`; other processes may do the same."""
    batch, first = settings["batch"], settings["first"]
    with _claim(folder, "manifest", wait=True):
        _agree(folder, settings, n)
    waiting = list(range(count(n, batch)))
    with tqdm(total=n, desc=title, unit="sample") as bar:
        while waiting:
            busy = []
            for k in waiting:
                with _claim(folder, f"{k:06d}") as mine:
                    if not mine:
                        busy.append(k)
                        continue
                    made = _make(folder, k, seeds_of(k, _wanted(folder), batch, first), make)
                rows = len(seeds_of(k, n, batch, first))
                if not (made or bar.disable):
                    bar.initial += rows  # what was there says nothing about our speed
                bar.update(rows)
            if len(busy) == len(waiting):
                time.sleep(_PAUSE)
            waiting = busy


def _make(folder: Path, k: int, seeds: Tensor, make: Callable[[int, Tensor], dict[str, Tensor]]) -> bool:
    """Write file k unless it is there, whole, for these seeds; whether it was written."""
    path = path_of(folder, k)
    if intact(path, seeds):
        return False
    tensors = make(k, seeds)
    replace_file(path, partial(save_file, tensors, metadata={"checksum": checksum(tensors)}))
    return True


@contextmanager
def _claim(folder: Path, name: str, wait: bool = False) -> Iterator[bool]:
    """Hold a lock in the folder, which is created if it does not exist; yields False where another process holds it.

    The system frees the lock of a process that is killed.
    """
    home = folder / ".locks"
    lock = FileLock(home / f"{name}.lock")
    try:  # here alone: errors inside the `with` are its own
        home.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=wait)
    except Timeout:
        pass
    except OSError as error:
        raise unwritable(folder, error.strerror or str(error)) from error
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _agree(folder: Path, settings: dict, n: int) -> None:
    """Compare with the folder's manifest, or write one. Raises Refused where they differ."""
    try:
        before = manifest_of(folder)
    except FileNotFoundError:
        if any(folder.glob("*.safetensors")):
            raise Refused(f"{folder} holds files of another kind: give shards.stream a new folder") from None
        before = settings | {"n": 0}
    for name, new in settings.items():
        if (old := before.get(name)) != new:
            raise Refused(f"{folder} holds samples of {name}={old!r}, not {new!r}: give another folder or delete it")
    if n < before["n"]:
        raise Refused(f"{folder} is for {before['n']} samples, more than n={n}: take a slice of shards.Shards(folder)")
    if n > before["n"]:
        text = json.dumps(settings | {"n": n}, indent=1)
        replace_file(folder / "manifest.json", lambda path: path.write_text(text, encoding="utf8"))


def _wanted(folder: Path) -> int:
    """How many samples the folder is for by now: another run may have asked for more."""
    return manifest_of(folder)["n"]
