"""Results that are slow to make, kept on disk under the fingerprint of all that they depend on.

One safetensors file a result: its tensors, and in the file's metadata the tree that they hang on and a checksum.
"""

import collections
import contextlib
import dataclasses
import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from memlib.cache._fingerprint import code_fingerprint, fingerprint
from memlib.cache.atomic import replace_file
from memlib.errors import Refused

_UNREADABLE = (OSError, SafetensorError, KeyError, ValueError)  # absent, truncated or damaged


def folder() -> Path:
    """Where artefacts lie: `MEMLIB_CACHE`, else `memlib` in the user's cache folder. Created at need.

    Raises `Refused` where it cannot be created.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    chosen = Path(os.environ.get("MEMLIB_CACHE") or home / "memlib")
    try:
        chosen.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot create the cache folder {chosen} ({error.strerror}): set MEMLIB_CACHE to one you can write"
        raise Refused(message) from None
    return chosen


def forced() -> bool:
    """Whether `MEMLIB_FRESH=1` asks that everything be made anew."""
    return os.environ.get("MEMLIB_FRESH", "0") not in ("", "0")


def cached(name: str, make: Callable[..., Any], *inputs: Any, seed: int = 0, fresh: bool | None = None) -> Any:
    """`make(*inputs)`, made once and then read from disk; a hit and a miss return equal trees of equal types.

    What `make` draws from torch's global generator starts from `seed`, and the generator outside is left as it was,
    so that a hit changes no later draw. `fresh=True` makes it anew, None asks `forced()`. Of two runs at once the
    second waits and reads. A damaged file is made again. The result may be a tree of dicts, lists, tuples, named
    tuples and dataclasses over tensors, arrays, numbers, strings, bytes and None; else TypeError.
    """
    key = fingerprint(name, make, inputs, seed, code_fingerprint(getattr(make, "__module__", "")))
    path = folder() / f"{name}-{key[:32]}.safetensors"
    with FileLock(f"{path}.lock"):
        if not (forced() if fresh is None else fresh):
            with contextlib.suppress(*_UNREADABLE):
                return load(path)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            result = make(*inputs)
        save(path, result)
        return load(path)


def trained(
    build: Callable[[], nn.Module],
    fit: Callable[..., nn.Module | None],
    *inputs: Any,
    name: str = "network",
    seed: int = 0,
) -> nn.Module:
    """A network, built and trained once and then read from disk; returned frozen and in evaluation mode.

    `build()` draws the initial weights from torch's generator seeded with `seed`; `fit(net, *inputs)` trains it in
    place, or returns the network to keep instead, such as a running average. The name of the artefact is the code of
    both and the content of `inputs`, as in `cached`.
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


def save(path: Path, tree: Any) -> None:
    """Write a tree to one safetensors file, atomically: a reader sees the old file or the whole new one."""
    tensors: dict[str, torch.Tensor] = {}
    packed = _packed(tree, tensors)
    # One entry, since safetensors writes several in random order.
    metadata = {"memlib": json.dumps({"tree": packed, "checksum": fingerprint(packed, tensors)})}
    replace_file(path, lambda beside: save_file(tensors, beside, metadata))


def load(path: Path) -> Any:
    """The tree that `save` wrote. An absent or damaged file raises OSError, SafetensorError, KeyError or ValueError."""
    with safe_open(path, "pt") as file:
        written = json.loads((file.metadata() or {})["memlib"])
        tensors = {key: file.get_tensor(key) for key in sorted(file.keys(), key=int)}
    if written["checksum"] != fingerprint(written["tree"], tensors):
        raise ValueError(f"{path} is damaged")
    return _unpacked(written["tree"], tensors)


def _packed(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The tree as JSON: plain values and lists stand for themselves, all else is {kind: content}."""

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
    """The named tuple or dataclass of this name; nothing else is taken from a file."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    if not isinstance(found, type) or not (hasattr(found, "_fields") or dataclasses.is_dataclass(found)):
        raise ValueError(f"{name} is neither a named tuple nor a dataclass")
    return found
