"""A SHA-256 of everything that a result depends on: values by content, functions and classes by code, libraries by
version."""

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
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memlib.stored import Stored

_MEMLIB = Path(__file__).parents[1]
_INSTALLED = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")})
_LIBRARIES = (str(_MEMLIB), *_INSTALLED)
_ATOMS = (type(None), bool, int, float, complex, str, bytes, range, slice, Path, type(...))
_ATOMS += (torch.dtype, torch.device, torch.Size)


def fingerprint(*things: Any) -> str:
    """Hex SHA-256 of the contents of `things`, the same in every process.

    The hash covers the dtype, shape and bytes of tensors and arrays; the classes, settings and state of modules; the
    parts of containers, dataclasses and other objects; the bytecode, defaults and closure of functions; and the methods
    of classes. For functions and classes outside of libraries it also covers the globals that they read, and for a
    module of one's own its source. Of what an installed library defines it covers the name and the library's version.

    Raises:
        TypeError: for a thing without content, such as an open file or a lock. As an attribute of a network, or a
            global that a method reads, it counts by its class alone.
    """
    digest = hashlib.sha256()
    _feed(digest, things, (), {}, False)
    return digest.hexdigest()


@functools.cache
def code_fingerprint(module: str = "") -> str:
    """Fingerprint of the code behind a module of memlib, and of the versions of Python and the libraries that it uses.

    It covers the module and all modules of memlib that it imports, directly or not, without comments and docstrings. So
    a change to a plot does not discard networks that were trained without it. For any other name it covers all of
    memlib.
    """
    home = _source(module)
    known = _closure(home) if home else sorted(_MEMLIB.rglob("*.py"))
    read = {str(path.relative_to(_MEMLIB)): _read(path.read_bytes()) for path in known}
    sources = {name: code for name, (code, _) in read.items()}
    tops = {name.partition(".")[0] for _, names in read.values() for name in names} - {"memlib"}
    versions = {top: _version(top) for top in sorted(tops | {"torch"}) if top not in sys.stdlib_module_names}
    return fingerprint(sources, sys.version_info[:2], versions)


@functools.cache  # the closures of a study's modules share most files, and parsing one takes milliseconds
def _read(source: bytes) -> tuple[str, tuple[str, ...]]:
    """A hash of what the source says to the interpreter, its tree without comments, layout and docstrings; and the
    dotted names that it imports anywhere."""
    tree, names = ast.parse(source), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str:
                node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(names)


@functools.cache
def _version(top: str) -> str | None:
    """The version of the library that installs the package `top`; None if there is none."""
    if not (found := _distributions().get(top)):
        return None
    return metadata.version(found[0])


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _installed(kind: type) -> bool:
    """Whether a class is of Python or of an installed library: it counts by its name and version."""
    home = str(kind.__module__)
    if home == "builtins":
        return not isinstance(vars(kind).get("__module__"), str)  # which a class of exec'd code has
    file = getattr(sys.modules.get(home), "__file__", None)
    if home.partition(".")[0] in sys.stdlib_module_names:
        return home != "__main__"
    return bool(file) and str(file).startswith(_INSTALLED) and not str(file).startswith(str(_MEMLIB))


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
        if (path := left.pop()) not in found:
            found.add(path)
            left += [file for name in _read(path.read_bytes())[1] if (file := _source(name))]
    return sorted(found)


def _feed(digest: Any, thing: Any, above: tuple[int, ...], seen: dict[int, type], lenient: bool) -> None:
    """Add one thing: its class, the length of what follows, then its bytes or its parts.

    `above` has the ids of the things that contain this one, which ends a cycle. `seen` has the classes whose code was
    added already. A thing without content counts by its class if `lenient`, and raises TypeError if not.
    """
    kind = f"{type(thing).__module__}.{type(thing).__qualname__}"
    if isinstance(thing, Stored):  # as the tensor that it stands for
        digest.update(f"torch.Tensor {thing.dtype} {tuple(thing.shape)} cpu {thing.nbytes}\n".encode())
        for part in thing.bytes():
            digest.update(part)
        return
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
    elif isinstance(thing, type):
        kind += f" {thing.__module__}.{thing.__qualname__}"
        parts = () if id(thing) in seen else list(_class(thing))
        seen[id(thing)] = thing
    else:
        try:
            parts = list(_parts(thing))
        except TypeError:
            if not lenient:
                raise
            parts = ()
        if not _installed(type(thing)):
            parts = [type(thing), *parts]
    digest.update(f"{kind} {len(parts)}\n".encode())
    if isinstance(parts, bytes | memoryview):
        digest.update(parts)
        return
    lenient = lenient or isinstance(thing, type | torch.nn.Module)
    for part in parts:
        _feed(digest, part, (*above, id(thing)), seen, lenient)


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
            yield from (path, type(module))
            yield {name: value for name, value in vars(module).items() if not name.startswith("_")}
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
        yield from _module(thing)
    elif callable(thing) and hasattr(thing, "__qualname__") and _installed(type(thing)):
        home = str(getattr(thing, "__module__", None))
        yield from (f"{home}.{thing.__qualname__}", _version(home.partition(".")[0]))
        yield getattr(thing, "__wrapped__", None)  # functools.cache
    elif isinstance(thing, staticmethod | classmethod):
        yield thing.__func__
    elif isinstance(thing, property):
        yield from (thing.fget, thing.fset, thing.fdel)
    elif dataclasses.is_dataclass(thing):
        yield {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing) if field.compare}
    elif hasattr(thing, "__dict__"):
        yield from (vars(thing), _version(type(thing).__module__.partition(".")[0]))
    else:
        raise TypeError(
            f"a {type(thing).__qualname__} has no content to hash: pass the values that are needed of it instead"
        )


def _class(kind: type) -> Iterator[Any]:
    """What a class and its bases define, each base by itself; an installed one by the version of its library."""
    if _installed(kind):
        yield _version(kind.__module__.partition(".")[0])
        return
    for name, value in sorted(vars(kind).items()):
        if not name.startswith("__") or callable(value):
            yield from (name, value)
    yield from kind.__bases__


def _module(module: types.ModuleType) -> Iterator[Any]:
    """The version of an installed library, and the code of a module of one's own; memlib's belongs to its callers."""
    file = str(getattr(module, "__file__", None) or "")
    yield from (module.__name__, _version(module.__name__.partition(".")[0]))
    if file.endswith(".py") and not file.startswith(_LIBRARIES):
        yield _read(Path(file).read_bytes())[0]


def _function(function: types.FunctionType) -> Iterator[Any]:
    """Code, defaults and closure; of an installed one the version, of one outside of memlib the globals it reads."""
    yield from (function.__code__, function.__defaults__, function.__kwdefaults__)
    yield [cell.cell_contents for cell in function.__closure__ or ()]
    if not function.__code__.co_filename.startswith(_LIBRARIES):
        names = sorted(set(_globals(function.__code__)) & set(function.__globals__))
        yield {name: function.__globals__[name] for name in names}
    else:
        yield _version(str(function.__module__).partition(".")[0])


def _globals(code: types.CodeType) -> Iterator[str]:
    """Names that the code, or a function inside it, looks up as globals."""
    for line in dis.get_instructions(code):
        if line.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield line.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals(constant)
