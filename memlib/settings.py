"""Settings of an experiment: a frozen dataclass whose fields have a type, and may have a range or choices.

    @dataclass(frozen=True)
    class Settings:
        width: Annotated[int, Between(8, 4096)] = 192        # units of a layer
        network: Literal["mlp", "unet"] = "mlp"

`changed(settings, values)` returns a copy with other values, and refuses a wrong value in one sentence.
"""

import dataclasses
import types
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from memlib.errors import Refused

SCALES = ("fast", "book", "gpu", "paper")

T = TypeVar("T")


class Between(NamedTuple):
    """The range low <= value <= high of a field, or of each element of a list."""

    low: float
    high: float


def changed(settings: T, values: Mapping[str, Any]) -> T:
    """A copy of `settings` (a dataclass) with other `values`, by name; every value is checked.

    Raises:
        Refused: for an unknown name, a wrong type, a value out of range or not among the choices.
    """
    hints = get_type_hints(type(settings), include_extras=True)
    fields = [field.name for field in dataclasses.fields(settings)]  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise Refused(f"unknown setting {plain(name)}: choose among {', '.join(fields)}{closest(name, fields)}")
    checked = {name: checked_value(name, value, hints[name]) for name, value in values.items()}
    return dataclasses.replace(settings, **checked)  # type: ignore[type-var]


def checked_value(name: str, value: Any, kind: Any) -> Any:
    """`value` converted as its annotation says. Raises `Refused` for a wrong type, range or choice."""
    ranges = [extra for extra in getattr(kind, "__metadata__", ()) if isinstance(extra, Between)]
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    choices = _choices(kind)
    if choices:
        among(f"parameter {name}", value, choices)
    value = typed(name, value, kind)
    for low, high in ranges:
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is not None and not isinstance(one, str) and not low <= one <= high:  # a NaN is in no range
                raise Refused(f"parameter {name} is {_shown(value)}: it must lie between {low:g} and {high:g}")
    return value


def typed(name: str, value: Any, kind: Any) -> Any:
    """`value` converted as its annotation says: an int to a float, a whole float to an int, a list to a tuple, and
    their elements.

    Raises `Refused` for another type. A bool is not an int here, and a string is never parsed.
    """
    try:
        return _converted(value, kind)
    except TypeError:
        wanted = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
        raise Refused(f"parameter {name} is {_shown(value)} ({type(value).__name__}): it must be {wanted}") from None


def among(what: str, value: Any, allowed: Iterable[Any]) -> None:
    """Refuse a value (or an element of a list) that is not allowed."""
    allowed = list(allowed)
    for one in value if isinstance(value, list | tuple) else [value]:
        if one not in allowed:
            listed = " or ".join(repr(option) for option in allowed)
            raise Refused(f"{what} is {_shown(one)}: choose {listed}{closest(str(one), allowed)}")


def closest(name: str, known: Iterable[Any]) -> str:
    """` (closest: NAME)` for the end of a sentence, or an empty string if no known name is close."""
    close = get_close_matches(name, [str(one) for one in known], n=1, cutoff=0.4)
    return f" (closest: {close[0]})" if close else ""


def plain(text: str) -> str:
    """A text of the user's for the middle of a sentence; one with lines, or a long one, is quoted and cut short."""
    return text if len(text) <= 80 and text.isprintable() else _shown(text[:80])


def _shown(value: Any) -> str:
    """The value as Python writes it, without the end of a long one."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _choices(kind: Any) -> tuple[Any, ...]:
    """The values of a Literal, or of the Literal inside a list or tuple."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    inner = [get_args(part) for part in get_args(kind) if get_origin(part) is Literal]
    return inner[0] if inner and get_origin(kind) in (list, tuple) else ()


def _converted(value: Any, kind: Any) -> Any:
    """`value` as `kind`, or TypeError."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
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
        try:
            return float(value)
        except OverflowError:
            raise TypeError from None
    if origin is int and type(value) is float and value.is_integer():  # 1e3
        return int(value)
    if origin in (list, tuple) and isinstance(value, list | tuple):
        if origin is tuple and inner and inner[-1] is not Ellipsis:
            if len(inner) != len(value):
                raise TypeError
            return tuple(map(_converted, value, inner))
        return origin(_converted(item, inner[0]) if inner else item for item in value)
    if isinstance(origin, type) and isinstance(value, origin) and (origin is bool or not isinstance(value, bool)):
        return value
    raise TypeError
