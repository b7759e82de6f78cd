"""What the metrics are given: numpy arrays and lists where tensors are wanted, and the level of an interval."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy
import torch

from memlib.errors import Refused

P = ParamSpec("P")
R = TypeVar("R")


def takes_arrays(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: the named arguments, tensors of any shape, may also be numpy arrays or lists of numbers."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind(*args, **kwargs)
            for name in names:
                if isinstance(given.arguments.get(name), numpy.ndarray | list | tuple):
                    given.arguments[name] = _tensor(given.arguments[name], name)
            return function(*given.args, **given.kwargs)

        return call

    return decorate


def checked_level(level: float) -> float:
    """The confidence level, unchanged. Raises Refused unless it lies between 0 and 1."""
    if not 0 < level < 1:
        meant = f": give {level / 100:g}" if 1 < level < 100 else ", such as 0.95"
        raise Refused(f"a confidence level is a fraction between 0 and 1, not {level:g}{meant}")
    return level


def _tensor(values: Any, name: str) -> torch.Tensor:
    try:
        array = numpy.ascontiguousarray(values)  # a list of floats becomes float64, which torch would make float32
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError) as error:
        raise Refused(f"{name} cannot be read as numbers: {str(error).splitlines()[0]}") from error
