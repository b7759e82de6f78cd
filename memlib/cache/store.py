"""Results that are slow to make, kept on disk under the fingerprint of everything that they depend on.

Each result is one safetensors file: its tensors, and in the metadata a checksum and the tree that contains them.
"""

import collections
import contextlib
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from memlib.cache._fingerprint import code_fingerprint, fingerprint
from memlib.cache.atomic import replace_file, unwritable
from memlib.errors import Refused

_UNREADABLE = (OSError, SafetensorError, KeyError, ValueError)  # absent, truncated or damaged


def folder() -> Path:
    """The folder of artefacts: `MEMLIB_CACHE`, else `memlib` in the user's cache folder. It is created if missing.

    Raises:
        Refused: if it cannot be created.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    chosen = Path(os.environ.get("MEMLIB_CACHE") or home / "memlib")
    try:
        chosen.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot create the cache folder {chosen} ({error.strerror}): set MEMLIB_CACHE to one you can write"
        raise Refused(message) from None
    return chosen


def place(name: str, make: Callable[..., Any], inputs: tuple[Any, ...], seed: int = 0) -> Path:
    """The file of `cached(name, make, *inputs, seed=seed)`, which may not exist yet."""
    key = fingerprint(name, make, inputs, seed, code_fingerprint(getattr(make, "__module__", "")))
    return folder() / f"{name}-{key[:32]}.safetensors"


def cached(name: str, make: Callable[..., Any], *inputs: Any, seed: int = 0) -> Any:
    """`make(*inputs)`, computed once and then read from disk.

    A computed result and one from disk are equal trees of equal types. Inside `make`, torch's global generator starts
    from `seed`; outside it is unchanged, so later random numbers do not depend on the cache. If two runs need one
    result, the second waits and reads it. A damaged file is made again.

    Arguments:
        name: the start of the file's name.
        make: returns a tree of dicts, lists, tuples, named tuples and dataclasses over tensors, arrays, numbers,
            strings, bytes and None. Its code is part of the fingerprint.
        inputs: the arguments of `make`, part of the fingerprint.
        seed: of torch's global generator, part of the fingerprint.

    Raises:
        TypeError: if an input cannot be hashed, or the result cannot be stored.
        Refused: if the disk is full or read-only. A result that a read-only cache has is read as ever.
    """
    return kept(place(name, make, inputs, seed), make, inputs, seed)


def kept(path: Path, make: Callable[..., Any], inputs: tuple[Any, ...], seed: int) -> Any:
    """As `cached`, for a path that `place` has named: inputs are not hashed again."""
    lock, told = _acquired(path)
    try:
        with contextlib.suppress(*_UNREADABLE):
            return _loaded(path, path.name)
        _fill(path, make, inputs, seed, told)
        return _loaded(path, path.name)
    finally:
        lock.release()


def attempt(path: Path, make: Callable[..., Any], inputs: tuple[Any, ...], seed: int) -> None:
    """Fill a path that `place` has named, unless it is there or another process is at it; nothing is waited for."""
    try:
        lock, told = _acquired(path, blocking=False)
    except Timeout:
        return
    try:
        if not path.exists():
            _fill(path, make, inputs, seed, told)
    finally:
        lock.release()


def _acquired(path: Path, blocking: bool = True) -> tuple[FileLock, str]:
    """The lock of a result. Where its folder cannot be written nobody makes it: then the lock is free, and why is told.

    Raises Timeout if another process holds it and `blocking` is False.
    """
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(blocking=blocking)
    except Timeout:  # an OSError too
        raise
    except OSError as error:
        return lock, error.strerror or str(error)
    return lock, ""


def _fill(path: Path, make: Callable[..., Any], inputs: tuple[Any, ...], seed: int, unwritten: str) -> None:
    """Make a result and write it. Raises Refused first if it cannot be written for the reason `unwritten`."""
    if unwritten:
        raise unwritable(path, unwritten)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        result = make(*inputs)
    _write(path, result, path.name)


def trained(
    build: Callable[[], nn.Module],
    fit: Callable[..., nn.Module | None],
    *inputs: Any,
    name: str = "network",
    seed: int = 0,
) -> nn.Module:
    """A network, built and trained once and then read from disk; it is frozen and in evaluation mode.

    Arguments:
        build: `build()` returns the untrained network, with weights from torch's generator seeded with `seed`.
        fit: `fit(net, *inputs)` trains the network in place, or returns the network to keep instead, such as a running
            average.
        inputs: part of the fingerprint, as the code of `build` and `fit` is.
        name: the start of the file's name.
        seed: of torch's global generator in `build` and `fit`.
    """

    def make(*inputs: Any) -> dict[str, torch.Tensor]:
        net = build()
        return dict((fit(net, *inputs) or net).state_dict())

    make.__module__ = getattr(fit, "__module__", "")
    state = cached(name, make, *inputs, seed=seed)
    with torch.random.fork_rng():
        net = build()
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def save(path: str | Path, tree: Any) -> None:
    """Write a tree to one safetensors file, atomically: a reader sees the old file or the whole new one.

    Raises:
        TypeError: if the tree holds what cannot be stored.
        Refused: if the disk is full or read-only.
    """
    _write(Path(path), tree)


def load(path: str | Path) -> Any:
    """The tree that `save` wrote.

    A file can make named tuples and dataclasses of memlib and of modules that are already imported, and nothing else.

    Raises:
        OSError: if the file is absent or cannot be read.
        Refused: if it is damaged or none that `save` wrote, or it names another class.
    """
    return _loaded(Path(path))


def _write(path: Path, tree: Any, name: str = "") -> None:
    """`save`; the file says its `name`, so that a copy of it under another name is not taken for another result."""
    tensors: dict[str, torch.Tensor] = {}
    packed = _packed(tree, tensors)
    # One entry, since safetensors writes several in random order.
    written = {"tree": packed, "name": name, "checksum": fingerprint(packed, name, tensors)}
    replace_file(path, lambda beside: save_file(tensors, beside, {"memlib": json.dumps(written)}))


def _loaded(path: Path, name: str = "") -> Any:
    """`load`; a file that says another `name`, where one is given, is refused too."""
    try:
        with safe_open(path, "pt") as file:
            written = json.loads((file.metadata() or {})["memlib"])
            tensors = {key: file.get_tensor(key) for key in sorted(file.keys(), key=int)}
        tree, stated = written["tree"], written.get("name")
        told = (tree, tensors) if stated is None else (tree, stated, tensors)  # None: of memlib 0.2.0 or before
        whole = written["checksum"] == fingerprint(*told) and (not name or stated in (None, name))
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Refused(
            f"{path} is damaged, or no file that memlib's cache wrote: delete it to have it made again"
        ) from error
    if not whole:
        raise Refused(f"{path} is damaged: delete it to have it made again")
    return _unpacked(tree, tensors)


def _packed(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The tree as JSON: plain values and lists as they are, all else as {kind: content}."""

    def keep(tensor: torch.Tensor) -> str:
        key = str(len(tensors))
        tensors[key] = tensor.detach().cpu().contiguous().clone()  # a copy: safetensors refuses shared storage
        return key

    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    if type(tree) is list:
        return [_packed(item, tensors) for item in tree]
    if isinstance(tree, torch.Tensor):
        return {"tensor": keep(tree), "device": tree.device.type}
    if isinstance(tree, np.ndarray):
        return {"array": keep(torch.from_numpy(np.ascontiguousarray(tree)))}
    if type(tree) is bytes:
        return {"bytes": keep(torch.frombuffer(bytearray(tree), dtype=torch.uint8) if tree else torch.empty(0))}
    if type(tree) in (dict, collections.OrderedDict):
        pairs = [[_packed(key, tensors), _packed(value, tensors)] for key, value in tree.items()]
        return {type(tree).__name__: pairs}
    if isinstance(tree, tuple) and (type(tree) is tuple or hasattr(tree, "_fields")):
        items = [_packed(item, tensors) for item in tree]
        return {"tuple": items} if type(tree) is tuple else {"named": _name(tree), "items": items}
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = {field.name: _packed(getattr(tree, field.name), tensors) for field in dataclasses.fields(tree)}
        return {"dataclass": _name(tree), "fields": fields}
    raise TypeError(f"a {type(tree).__qualname__} cannot be stored: return tensors, numbers, strings and trees of them")


def _unpacked(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The inverse of `_packed`."""

    def each(items: list) -> list:
        return [_unpacked(item, tensors) for item in items]

    match tree:
        case list():
            return each(tree)
        case {"tensor": key, "device": device}:
            return tensors[key].to(device)
        case {"array": key}:
            return tensors[key].numpy()
        case {"bytes": key}:
            return tensors[key].numpy().tobytes()
        case {"dict": pairs}:
            return {key: value for key, value in map(each, pairs)}
        case {"OrderedDict": pairs}:
            return collections.OrderedDict(map(each, pairs))
        case {"tuple": items}:
            return tuple(each(items))
        case {"named": name, "items": items}:
            return _class(name)._make(each(items))
        case {"dataclass": name, "fields": fields}:
            made = object.__new__(_class(name))
            for key, value in fields.items():
                object.__setattr__(made, key, _unpacked(value, tensors))  # past frozen=True and __post_init__
            return made
    return tree


def _name(thing: Any) -> str:
    return f"{type(thing).__module__}:{type(thing).__qualname__}"


def _class(name: str) -> Any:
    """The named tuple or dataclass of this name, from memlib or from a module that is already imported.

    Importing runs code, and a file from elsewhere must not choose which.
    """
    module, _, path = name.partition(":")
    if sys.modules.get(module) is None:
        if not module.startswith("memlib.") or module.endswith("__main__"):
            raise Refused(f"{name} is in a module that is not imported: import {module} before reading the file")
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise Refused(
                f"{name} is in a module that does not exist: read the file with the version that wrote it"
            ) from error
    found: Any = sys.modules[module]
    for part in path.split("."):
        found = vars(found).get(part)
        if not isinstance(found, type):
            break
    if not isinstance(found, type) or not (hasattr(found, "_fields") or dataclasses.is_dataclass(found)):
        raise Refused(f"{name} is neither a named tuple nor a dataclass: a file can make no other object")
    return found
