"""One way to write a file: beside it, flushed to disk, then renamed over, so that a kill leaves the old or the new."""

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill `path` with the suffix `.partial`, flush it to disk and rename it over `path`.

    Folders are created at need. What a killed writer left is overwritten, so one file has one writer at a time: lock
    it where there could be two. What `write` raises passes through, and so does the OSError of a disk that is full or
    read-only; no half-written file stays behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    try:
        write(beside)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
