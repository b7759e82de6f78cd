"""Atomic writing: fill a second file, then rename it, so that a kill leaves the old file or the new one."""

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file with the suffix `.partial`, flush it to disk and rename it to `path`.

    Missing folders are created. A file may have one writer at a time: use a lock where there could be two.

    Raises:
        OSError: if the disk is full or read-only. This and any exception of `write` leave no partial file behind.
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
