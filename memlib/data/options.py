"""The text after the name of a source: a place, then options, as in `celeba:PATH,label=Bangs,limit=2000`."""

import os
import re
from collections.abc import Callable
from inspect import signature
from typing import Any, get_args

from memlib.errors import Refused

COMMON = {"limit": int, "seed": int, "duplicates": str}
"""The options of every source; its own are the keyword-only parameters of its function."""


def read(source: str, load: Callable[..., Any]) -> tuple[str, dict[str, int | str | bool]]:
    """The place and the options of `kind:PLACE,name=value,...`, each value in the type that `load` declares.

    Options are read from the right, so the place may contain commas. Text that looks like an unknown option belongs to
    the place if a file or folder of that name exists.

    Raises:
        Refused: for an option that is unknown, given twice, or of another type.
    """
    kind, _, place = source.partition(":")
    known = COMMON | own(load)
    given: dict[str, int | str | bool] = {}
    while found := re.fullmatch(r"(?:(.*),)?([A-Za-z_]\w*)=([^,]*)", place):
        rest, name, text = found.groups()
        if name not in known and os.path.exists(os.path.expanduser(place)):
            break
        if name not in known:
            raise Refused(f"{kind} has no option {name!r}: give one of {', '.join(sorted(known))}")
        if name in given:
            raise Refused(f"{source!r} gives the option {name!r} twice: give it once")
        given[name] = _value(name, text, known[name], source)
        place = rest or ""
    return place, given


def own(load: Callable[..., Any]) -> dict[str, Any]:
    """The options that the function of a source declares, with their types."""
    parameters = signature(load).parameters.values()
    return {item.name: item.annotation for item in parameters if item.kind is item.KEYWORD_ONLY}


def _value(name: str, text: str, kind: Any, source: str) -> int | str | bool:
    kinds = get_args(kind) or (kind,)  # int | None is a whole number or nothing
    if bool in kinds:
        if text not in ("yes", "no"):
            raise Refused(f"{source!r} has {name} = {text!r}: give yes or no")
        return text == "yes"
    if int in kinds:
        if re.fullmatch(r"\d{1,40}", text, re.ASCII):
            return int(text)
        if re.fullmatch(r"\d{1,9}(\.\d{1,9})?[eE]\+?\d{1,2}", text, re.ASCII) and float(text).is_integer():
            return int(float(text))  # 1e3
        raise Refused(f"{source!r} has {name} = {text!r}: give a whole number from 0")
    if not text:
        raise Refused(f"{source!r} has {name} = '': give a value, or leave it out")
    return text
