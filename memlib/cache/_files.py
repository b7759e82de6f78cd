"""The files of a folder of samples: names, checksums, and reading and writing one whole."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from memlib.cache.atomic import replace_file
from memlib.errors import Refused

UNREADABLE = (OSError, SafetensorError, KeyError, ValueError)  # absent, truncated or damaged


def count(n: int, batch: int) -> int:
    return -(-n // batch)


def path_of(folder: Path, k: int) -> Path:
    return folder / f"{k:06d}.safetensors"


def seeds_of(k: int, n: int, batch: int, first: int) -> Tensor:
    """The seeds of the k-th file."""
    return torch.arange(k * batch, min(n, (k + 1) * batch)) + first


def unwritable(path: Path, error: Exception) -> Refused:
    why = getattr(error, "strerror", None) or error
    return Refused(f"cannot write {path} ({why}): make room or take another folder, then start again to go on")


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """`replace_file`, with Refused if the disk cannot be written."""
    try:
        replace_file(path, write)
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from error


def checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def intact(path: Path, seeds: Tensor) -> bool:
    """Whether the file exists, is undamaged and has these seeds."""
    try:
        tensors, stated = tensors_of(path)
        return torch.equal(tensors["seeds"], seeds) and stated == checksum(tensors)
    except UNREADABLE:
        return False


def rows_in(path: Path) -> int:
    with opened(path) as file:
        return file.get_slice("seeds").get_shape()[0]


def tensors_of(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file, and the checksum that it states."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return tensors, file.metadata()["checksum"]


def opened(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except UNREADABLE as error:
        raise damaged(path) from error


def damaged(path: Path) -> Refused:
    return Refused(f"{path} is damaged: start shards.stream again with the same settings to draw it anew")
