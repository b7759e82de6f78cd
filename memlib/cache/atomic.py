"""Atomic writing: fill a second file, then rename it, so that a kill or a power cut leaves the old file or the new one.

A name may reach the disk before the bytes behind it, so these are flushed first. No other file of memlib renames.
"""

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
        _flush(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def place_folder(filled: Path, folder: Path) -> None:
    """Flush the files of a filled folder to disk and rename it to `folder`, which is new or empty.

    Raises:
        OSError: if the disk is full, or `folder` holds something.
    """
    for path in filled.rglob("*"):
        if path.is_file():
            _flush(path)
    if folder.exists():
        folder.rmdir()
    os.replace(filled, folder)


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
