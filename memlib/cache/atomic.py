"""Atomic writing: fill a second file, then rename it, so that a kill or a power cut leaves the old file or the new one.

A name may reach the disk before the bytes behind it, so these are flushed first. No other file of memlib renames.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from memlib.errors import Refused


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file with the suffix `.partial`, flush it to disk and rename it to `path`.

    Missing folders are created. The file is filled in a folder of its own, which the next writer of `path` clears if a
    kill left it: `write` may have begun further files there. A file may have one writer at a time: use a lock where
    there could be two.

    Raises:
        Refused: if the disk is full or read-only. This and any exception of `write` leave no partial file behind.
    """
    room = path.with_suffix(".partial")
    try:
        with writing(path):
            if room.is_dir():
                shutil.rmtree(room)
            else:
                room.unlink(missing_ok=True)
            room.mkdir(parents=True)
            beside = room / room.name
            write(beside)
            _flush(beside)
            os.replace(beside, path)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def place_folder(filled: Path, folder: Path) -> None:
    """Flush the files of a filled folder to disk and rename it to `folder`, which is new or empty.

    Raises:
        Refused: if the disk is full or read-only, or `folder` holds something.
    """
    with writing(folder):
        for path in filled.rglob("*"):
            if path.is_file():
                _flush(path)
        if folder.exists():
            folder.rmdir()
        os.replace(filled, folder)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Write something that belongs to `path`, or tell the user why it cannot be written.

    Raises:
        Refused: for a disk that is full, read-only or failing.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error.strerror or str(error)) from error
    except SafetensorError as error:
        found = re.search(r"I/O error: (.*?)(?: \(os error|$)", str(error))
        if not found:
            raise
        raise unwritable(path, found[1]) from error


def unwritable(path: Path, why: str) -> Refused:
    """The sentence for a file or folder that cannot be written."""
    return Refused(f"cannot write {path} ({why}): make room or take another folder, then start again to go on")


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
