"""The parameters of a chapter: those that a notebook declares, the values it is given, and the study's settings.

The parameters cell declares them (`n_train: int = 300  # images the model is trained on`). Python keeps its
annotations, and papermill adds a cell of plain assignments after it. `scale`, `seed` and `settings` mean the same in
every chapter; every other parameter is a field of the study's `Settings`.
"""

import ast
import dataclasses
import json
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from memlib.errors import Refused, needs
from memlib.settings import SCALES, among, changed, closest, plain, typed

_PLAIN = (bool, int, float, str, list, dict, types.NoneType)  # what papermill can inject
_INJECTED = "# Parameters"  # the first line of the cell that papermill adds
_COMMON = ("scale", "seed", "settings")


def injected(namespace: Mapping[str, Any]) -> list[str]:
    """The names that papermill's cell assigns, from IPython's history `In`.

    Without IPython: every plain global that has no annotation.
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


def settle(namespace: Mapping[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """The value of each annotated parameter, in the order of the cell, converted to its type.

    Raises:
        Refused: for an unknown name or scale, a parameter without a value, or a wrong type.
    """
    kinds = {name: _evaluated(kind) for name, kind in namespace.get("__annotations__", {}).items()}
    if "settings" in kinds:  # or the path of a file; papermill knows no parameter whose annotation has a |
        kinds["settings"] = dict | str
    for name in given:
        if name not in kinds:
            listed = ", ".join(kinds)
            raise Refused(
                f"unknown parameter {plain(name)}: choose among {listed}, or give settings{closest(name, kinds)}"
            )
    if missing := [name for name in kinds if name not in namespace]:
        raise Refused(f"parameter {missing[0]} has no value: give one with -p {missing[0]} VALUE")
    values = {name: typed(name, _parsed(namespace[name], kind), kind) for name, kind in kinds.items()}
    among("scale", values.get("scale", "fast"), SCALES)
    return values


def settings_of(scales: Mapping[str, Any], values: Mapping[str, Any], given: Iterable[str]) -> Any:
    """The study's settings: those of the scale, changed by the parameters, and then by the parameter `settings`.

    At `fast` all parameters count, so that a reader may edit the cell. At another scale only the `given` ones count.

    Arguments:
        scales: the settings (a dataclass) of each scale.
        values: the parameters, checked by `settle`.
        given: the names that papermill assigned.

    Raises:
        Refused: for a scale without settings, and as `memlib.settings.changed`.
    """
    scale = values.get("scale", "fast")
    if scale not in scales:
        raise Refused(f"scale {scale!r} has no settings in this chapter: choose {' or '.join(map(repr, scales))}")
    own = {name: value for name, value in values.items() if name not in _COMMON}
    if scale != "fast":
        own = {name: value for name, value in own.items() if name in set(given)}
    return changed(changed(scales[scale], own), further(values.get("settings", {})))


def further(settings: dict[str, Any] | str) -> dict[str, Any]:
    """Further settings by name, from a dict or from a YAML file.

    Raises:
        Refused: if the file cannot be read, is not YAML or has other contents, or PyYAML is not installed.
    """
    if isinstance(settings, dict):
        return settings
    if not settings:
        return {}
    with needs("book"):
        import yaml

    try:
        read = yaml.safe_load(Path(settings).expanduser().read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise Refused(f"settings {settings!r} cannot be read ({reason}): give a dict or a YAML file") from None
    if not isinstance(read, dict) or not all(isinstance(name, str) for name in read):
        raise Refused(f"settings {settings!r} holds a {type(read).__name__}: give names and values")
    return read


def as_dict(settings: Any) -> dict[str, Any]:
    """A dataclass of settings as plain values, tuples as lists: what JSON gives back."""
    return json.loads(json.dumps(dataclasses.asdict(settings), default=str))


def literal(text: str) -> Any:
    """What a text says: a Python literal, JSON's `true`, `false`, `null`, a list of words `[cat, dog]`; or itself."""
    try:
        return ast.literal_eval({"true": "True", "false": "False", "null": "None"}.get(text, text))
    except (ValueError, SyntaxError):
        words = re.fullmatch(r"\s*\[([^\[\]{}'\"]+)\]\s*", text)
        return [literal(word.strip()) for word in words[1].split(",")] if words else text


def _parsed(value: Any, kind: Any) -> Any:
    """A list or dict that came as text, as plain papermill's `-p rates "[1e-3, 1e-2]"` gives it; else the value."""
    told = isinstance(value, str) and kind is not str and value.lstrip().startswith(("[", "(", "{"))
    return literal(value) if told else value


def _evaluated(kind: Any) -> Any:
    """An annotation that a notebook wrote as a string, evaluated among the types that a parameter can have."""
    return eval(kind, {"Any": Any, "Literal": Literal}) if isinstance(kind, str) else kind
