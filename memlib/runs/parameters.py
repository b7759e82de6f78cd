"""What a chapter's parameters may be: known names, their types, ranges and choices, and the values of a scale.

The parameters cell is the declaration (`n_train: int = 300  # images the model is trained on`): Python keeps its
annotations, and papermill injects a cell of plain assignments after it.
"""

import ast
import types
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin

from memlib.errors import Refused

SCALES = ("fast", "book", "gpu", "paper")
_PLAIN = (bool, int, float, str, list, dict, types.NoneType)  # what papermill can inject
_INJECTED = "# Parameters"  # the first line of the cell that papermill adds


def injected(namespace: Mapping[str, Any]) -> list[str]:
    """Names that were given from outside: those assigned in papermill's cell, found in IPython's history `In`.

    Without IPython, every plain global that has no annotation.
    """
    if "In" in namespace:
        cells = [cell for cell in namespace["In"] if cell.startswith(_INJECTED)]
        body = ast.parse(cells[-1]).body if cells else []
        return [ast.unparse(target) for line in body if isinstance(line, ast.Assign) for target in line.targets]
    known = namespace.get("__annotations__", {})
    return [
        name
        for name, value in namespace.items()
        if isinstance(value, _PLAIN) and not name.startswith("_") and name not in known
    ]


def settle(
    namespace: Mapping[str, Any],
    given: Iterable[str],
    *,
    scales: Mapping[str, Mapping[str, Any]] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    choices: Mapping[str, Iterable[Any]] | None = None,
) -> dict[str, Any]:
    """The effective value of each annotated parameter, in the order of the cell.

    Parameters in `given` keep their value; the others take the value of `scales[scale]` where it names them.
    `scales=None` leaves the scale unapplied (the command line checks before the chapter's tables are known).
    Raises `Refused` for an unknown name or scale, a wrong type, a value out of range or not among the choices.
    """
    kinds = {name: _evaluated(kind) for name, kind in namespace.get("__annotations__", {}).items()}
    tables = {"ranges": ranges or {}, "choices": choices or {}}
    tables |= {f"scales[{scale!r}]": table for scale, table in (scales or {}).items()}
    for table, entries in tables.items():
        if wrong := set(entries) - set(kinds):
            raise TypeError(f"{table} names {sorted(wrong)}, which the parameters cell does not declare")

    for name in given:
        if name not in kinds:
            raise Refused(f"unknown parameter {name}: choose among {', '.join(kinds)}{_closest(name, kinds)}")
    if missing := [name for name in kinds if name not in namespace]:
        raise Refused(f"parameter {missing[0]} has no value: give one with -p {missing[0]} VALUE")
    values = {name: typed(name, namespace[name], kind) for name, kind in kinds.items()}

    scale = values.get("scale", "fast")
    _among("scale", scale, SCALES)
    if scales is not None and scale != "fast":
        if scale not in scales:
            raise Refused(f"scale {scale!r} has no settings in this chapter: choose {_listed(['fast', *scales])}")
        chosen = {name: value for name, value in scales[scale].items() if name not in set(given)}
        values |= {name: typed(name, value, kinds[name]) for name, value in chosen.items()}

    for name, (low, high) in tables["ranges"].items():
        for value in values[name] if isinstance(values[name], list | tuple) else [values[name]]:
            if value is not None and not low <= value <= high:  # a NaN is in no range
                raise Refused(f"parameter {name} is {value!r}: it must lie between {low} and {high}")
    for name, allowed in tables["choices"].items():
        _among(f"parameter {name}", values[name], list(allowed))
    return values


def typed(name: str, value: Any, kind: Any) -> Any:
    """`value` as its annotation wants it: an int becomes a float, a list a tuple, elements alike.

    Raises `Refused` otherwise; a bool is no int, and a string is never parsed.
    """
    try:
        return _converted(value, kind)
    except TypeError:
        wanted = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
        raise Refused(f"parameter {name} is {value!r} ({type(value).__name__}): it must be {wanted}") from None


def _converted(value: Any, kind: Any) -> Any:
    """`value` as `kind`, or TypeError."""
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, types.UnionType):
        # The exact type first: 1 given to `float | int` stays an int.
        for option in sorted(inner, key=lambda option: type(value) is not (get_origin(option) or option)):
            try:
                return _converted(value, option)
            except TypeError:
                continue
        raise TypeError
    if origin is Literal and value in inner:
        return value
    if origin is Any:
        return value
    if value is None and kind in (None, types.NoneType):
        return None
    if origin is float and type(value) is int:
        return float(value)
    if origin in (list, tuple) and isinstance(value, list | tuple):
        if origin is tuple and inner and inner[-1] is not Ellipsis:
            if len(inner) != len(value):
                raise TypeError
            return tuple(map(_converted, value, inner))
        return origin(_converted(item, inner[0]) if inner else item for item in value)
    if isinstance(origin, type) and isinstance(value, origin) and (origin is bool or not isinstance(value, bool)):
        return value
    raise TypeError


def _evaluated(kind: Any) -> Any:
    """An annotation that a notebook wrote as a string, evaluated among the types that a parameter can have."""
    return eval(kind, {"Any": Any, "Literal": Literal}) if isinstance(kind, str) else kind


def _among(what: str, value: Any, allowed: list[Any] | tuple[Any, ...]) -> None:
    """Refuse a value (or an element of a list) that is not allowed."""
    for one in value if isinstance(value, list | tuple) else [value]:
        if one not in allowed:
            raise Refused(f"{what} is {one!r}: choose {_listed(allowed)}{_closest(str(one), allowed)}")


def _closest(name: str, known: Iterable[Any]) -> str:
    """` (closest: NAME)` where a known name is close, for the end of a sentence."""
    close = get_close_matches(name, [str(one) for one in known], n=1, cutoff=0.4)
    return f" (closest: {close[0]})" if close else ""


def _listed(options: Iterable[Any]) -> str:
    return " or ".join(repr(option) for option in options)
