"""A SHA-256 of everything that a result depends on: values by content, functions by code, memlib by source file."""

import ast
import dataclasses
import dis
import functools
import hashlib
import inspect
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

_MEMLIB = Path(__file__).parents[1]
_LIBRARIES = (str(_MEMLIB), *{sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")})
_ATOMS = (type(None), bool, int, float, complex, str, bytes, range, slice, Path, type(...))
_ATOMS += (torch.dtype, torch.device, torch.Size)


def fingerprint(*things: Any) -> str:
    """Hex SHA-256 of the contents of `things`, the same in every process.

    The hash covers the dtype, shape and bytes of tensors and arrays; the class, settings and state of modules; the
    parts of containers, dataclasses and other objects; and the bytecode, defaults and closure of functions. For a
    function outside of libraries it also covers the globals that the function reads.

    Raises:
        TypeError: for a thing without content, such as an open file or a lock.
    """
    digest = hashlib.sha256()
    _feed(digest, things, ())
    return digest.hexdigest()


@functools.cache
def code_fingerprint(module: str = "") -> str:
    """Fingerprint of the sources behind a module of memlib, and of the versions of Python and torch.

    It covers the source of the module and of all modules of memlib that it imports, directly or not. So a change to a
    plot does not discard networks that were trained without it. For any other name it covers all of memlib.
    """
    home = _source(module)
    known = _closure(home) if home else sorted(_MEMLIB.rglob("*.py"))
    sources = {str(path.relative_to(_MEMLIB)): path.read_bytes() for path in known}
    return fingerprint(sources, sys.version_info[:2], torch.__version__)


def _source(module: str) -> Path | None:
    """The file of a module of memlib; None for any other name."""
    head, *rest = module.split(".")
    path = _MEMLIB.joinpath(*rest)
    if head != "memlib":
        return None
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def _closure(start: Path) -> list[Path]:
    """The file itself and all files of memlib that it imports by name, directly or not."""
    found, left = set(), [start]
    while left:
        if (path := left.pop()) in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            left += [file for name in names if (file := _source(name))]
    return sorted(found)


def _feed(digest: Any, thing: Any, above: tuple[int, ...]) -> None:
    """Add one thing: its class, the length of what follows, then its bytes or its parts.

    `above` has the ids of the things that contain this one, which ends a cycle.
    """
    kind = f"{type(thing).__module__}.{type(thing).__qualname__}"
    if id(thing) in above:
        parts: Any = ()
    elif isinstance(thing, _ATOMS):
        parts = repr(thing).encode()
    elif isinstance(thing, torch.Tensor):
        flat = thing.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy()
        kind += f" {thing.dtype} {tuple(thing.shape)} {thing.device.type}"
        parts = flat.data
    elif isinstance(thing, np.ndarray | np.generic) and thing.dtype != object:
        kind += f" {thing.dtype} {thing.shape}"
        parts = np.ascontiguousarray(thing).tobytes()
    else:
        parts = list(_parts(thing))
    digest.update(f"{kind} {len(parts)}\n".encode())
    if isinstance(parts, bytes | memoryview):
        digest.update(parts)
        return
    for part in parts:
        _feed(digest, part, (*above, id(thing)))


def _parts(thing: Any) -> Iterator[Any]:
    """The parts of a compound thing, in a fixed order."""
    if isinstance(thing, dict | types.MappingProxyType):
        for pair in thing.items():
            yield from pair
    elif isinstance(thing, set | frozenset):
        yield from sorted(fingerprint(item) for item in thing)
    elif isinstance(thing, list | tuple):
        yield from thing
    elif isinstance(thing, torch.nn.Module):
        for path, module in thing.named_modules():
            yield path
            yield f"{type(module).__module__}.{type(module).__qualname__}"
            yield {name: value for name, value in vars(module).items() if not name.startswith("_") and _has(value)}
        yield dict(thing.state_dict())
    elif isinstance(thing, torch.Generator):
        yield thing.get_state()
    elif isinstance(thing, functools.partial):
        yield from (thing.func, thing.args, thing.keywords)
    elif isinstance(thing, types.MethodType):
        yield from (thing.__func__, thing.__self__)
    elif isinstance(thing, types.FunctionType):
        # What the tests wrap around memlib's own functions, to check shapes, is not part of them.
        yield from _function(inspect.unwrap(thing) if str(thing.__module__).startswith("memlib.") else thing)
    elif isinstance(thing, types.CodeType):
        yield from (thing.co_code, thing.co_names, thing.co_freevars, thing.co_consts)
    elif isinstance(thing, types.ModuleType):
        yield thing.__name__
    elif isinstance(thing, type) or callable(thing) and hasattr(thing, "__qualname__"):
        yield f"{thing.__module__}.{thing.__qualname__}"
        yield getattr(thing, "__wrapped__", None)  # functools.cache
    elif dataclasses.is_dataclass(thing):
        yield {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing) if field.compare}
    elif hasattr(thing, "__dict__"):
        yield vars(thing)
    else:
        raise TypeError(
            f"a {type(thing).__qualname__} has no content to hash: pass the values that are needed of it instead"
        )


def _function(function: types.FunctionType) -> Iterator[Any]:
    """Code, defaults and closure; and for a function outside of libraries, the globals that it reads."""
    yield from (function.__code__, function.__defaults__, function.__kwdefaults__)
    yield [cell.cell_contents for cell in function.__closure__ or ()]
    if not function.__code__.co_filename.startswith(_LIBRARIES):
        names = sorted(set(_globals(function.__code__)) & set(function.__globals__))
        yield {name: function.__globals__[name] for name in names}


def _globals(code: types.CodeType) -> Iterator[str]:
    """Names that the code, or a function inside it, looks up as globals."""
    for line in dis.get_instructions(code):
        if line.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield line.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals(constant)


def _has(value: Any) -> bool:
    """Whether an attribute of somebody else's module has content to hash."""
    try:
        fingerprint(value)
    except TypeError:
        return False
    return True
