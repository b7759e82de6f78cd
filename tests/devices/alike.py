"""One call on the CPU and once more on the device: equal values, and tensors that stayed where their inputs were."""

import copy
import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

HERE = "stays on the CPU"
LOOSE = "only near, since training amplifies rounding"
ROUGH = "no values, since precision or the order of sums differs"


def seeded(k: int = 0) -> torch.Generator:
    """A fresh generator on the CPU."""
    return torch.Generator().manual_seed(k)


def mover(device: torch.device | str) -> Callable[[Any], Any]:
    """A function that puts a tensor, a copy of a module, or a tree of them on the device."""

    def move(thing: Any) -> Any:
        if isinstance(thing, Tensor):
            return thing.clone().to(device)
        if isinstance(thing, nn.Module):
            return copy.deepcopy(thing).to(device)
        if isinstance(thing, tuple) and hasattr(thing, "_fields"):
            return type(thing)(*map(move, thing))
        if isinstance(thing, list | tuple):
            return type(thing)(map(move, thing))
        if isinstance(thing, dict):
            return {key: move(value) for key, value in thing.items()}
        return thing

    return move


def check(case: Callable[[Callable], Any], device: torch.device, *notes: str) -> None:
    """Run `case(move)` for both devices and compare the trees that it returns."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wanted = case(mover("cpu"))
        torch.manual_seed(0)
        found = case(mover(device))
    near = {"rtol": 0.05, "atol": 0.02} if LOOSE in notes else {"rtol": 1e-4, "atol": 1e-5}
    pairs = list(zip(_leaves(wanted), _leaves(found), strict=True))
    assert pairs, "the case returns nothing to compare"
    for one, other in pairs:
        if isinstance(other, Tensor):
            place = "cpu" if HERE in notes else device.type
            assert other.device.type == place and other.shape == one.shape
            if ROUGH in notes:  # a GPU trains in bfloat16 where it can
                assert other.isfinite().all()
            else:
                assert other.dtype == one.dtype
                torch.testing.assert_close(other.detach().cpu(), one.detach(), equal_nan=True, **near)
        elif isinstance(other, float):
            assert ROUGH in notes or other == pytest.approx(one, rel=near["rtol"], abs=near["atol"], nan_ok=True)
        else:
            assert other == one


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, nn.Module):
        return [parameter for _, parameter in sorted(tree.state_dict().items())]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return _leaves([getattr(tree, field.name) for field in dataclasses.fields(tree)])
    if isinstance(tree, Mapping):
        return _leaves(list(tree.values()))
    if isinstance(tree, list | tuple):
        return [leaf for item in tree for leaf in _leaves(item)]
    return [tree]


def takers(module: str) -> set[str]:
    """The public callables of a module that take a tensor, a network or a function of tensors, as room.name."""
    found = importlib.import_module(f"memlib.{module}")
    names = getattr(found, "__all__", None) or [
        name for name, thing in vars(found).items() if getattr(thing, "__module__", "") == found.__name__
    ]
    return {f"{module}.{name}" for name in names if name[0] != "_" and _takes_tensors(getattr(found, name))}


def _takes_tensors(thing: Any) -> bool:
    is_class = inspect.isclass(thing)
    if not (is_class or inspect.isfunction(thing)) or getattr(thing, "_is_protocol", False):
        return False
    if is_class and issubclass(thing, Exception):
        return False
    told = " ".join(str(one.annotation) for one in inspect.signature(thing).parameters.values())
    words = ("Tensor", "Denoiser", "Module", "Density", "Completer", "ScoreNetworks", "Problem", "Surrogate")
    return (is_class and issubclass(thing, nn.Module)) or any(word in told for word in words)
