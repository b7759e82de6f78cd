"""The files of a folder of samples: names, checksums, and reading one whole."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from memlib.errors import Refused

UNREADABLE = (OSError, SafetensorError, KeyError, ValueError)  # absent, truncated or damaged


def count(n: int, batch: int) -> int:
    """The number of files for n samples, a scalar."""
    return -(-n // batch)


def path_of(folder: Path, k: int) -> Path:
    """The k-th file."""
    return folder / f"{k:06d}.safetensors"


def seeds_of(k: int, n: int, batch: int, first: int) -> Tensor:
    """The seeds of the k-th file, (B,)."""
    return torch.arange(k * batch, min(n, (k + 1) * batch)) + first


def manifest_of(folder: Path) -> dict[str, Any]:
    """What a folder says of itself: n, batch, first, key and dtype.

    Raises:
        OSError: if there is no manifest.
        Refused: if it is damaged.
    """
    manifest = folder / "manifest.json"
    try:
        told = json.loads(manifest.read_text(encoding="utf8"))
    except ValueError:
        told = None
    whole = isinstance(told, dict) and all(type(told.get(name)) is int for name in ("n", "batch", "first"))
    if not (isinstance(told, dict) and whole and told["n"] > 0 and told["batch"] > 0 and "key" in told):
        raise Refused(f"{manifest} is damaged: delete the folder {folder} to draw anew")
    return told


def checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes of tensors of any shape."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def intact(path: Path, seeds: Tensor) -> bool:
    """Whether the file exists, is undamaged and has these seeds, (B,)."""
    try:
        tensors, stated = tensors_of(path)
        return torch.equal(tensors["seeds"], seeds) and stated == checksum(tensors)
    except UNREADABLE:
        return False


def rows_in(path: Path) -> int:
    """How many samples a file holds, a scalar."""
    try:
        with opened(path) as file:
            return file.get_slice("seeds").get_shape()[0]
    except (SafetensorError, IndexError) as error:  # no seeds, or a single number
        raise damaged(path) from error


def tensors_of(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file, (B, ...) each, and the checksum that it states."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return tensors, file.metadata()["checksum"]


def opened(path: Path) -> safe_open:
    """The file, to read parts of it. Raises Refused for a damaged one."""
    try:
        return safe_open(path, "pt")
    except UNREADABLE as error:
        raise damaged(path) from error


def damaged(path: Path) -> Refused:
    """The refusal for a file that is not what was written."""
    return Refused(f"{path} is damaged: start shards.stream again with the same settings to draw it anew")
