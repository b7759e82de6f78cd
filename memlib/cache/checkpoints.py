"""Checkpoints of a training: one file each, with the step and the settings in its header."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from memlib.cache._fingerprint import fingerprint
from memlib.cache.atomic import replace_file
from memlib.errors import Refused

_SETTINGS = bool | int | float | str | tuple | Tensor


def architecture(net: nn.Module) -> str:
    """SHA-256 of the names, shapes and types of the state, of which parameters are trained, and of settings.

    Settings are attributes of a module that are fractions, texts or tensors without being saved as weights are, such as
    the probability of a dropout or the levels of a discrete-time model; of torch's own modules also whole numbers and
    tuples, such as the groups of a norm. (In a module of the user's, a whole number may be a counter.)
    """
    state = [(name, tuple(t.shape), str(t.dtype)) for name, t in net.state_dict().items()]
    trained = [name for name, p in net.named_parameters() if p.requires_grad]
    settings = [
        (path, name, fingerprint(value.cpu() if isinstance(value, Tensor) else value))
        for path, module in net.named_modules()
        for name, value in sorted(vars(module).items())
        if isinstance(value, _SETTINGS if type(module).__module__.startswith("torch.nn.") else float | str | Tensor)
        and not name.startswith("_")
        and name != "training"
    ]
    return hashlib.sha256(repr((state, trained, settings)).encode()).hexdigest()


def write(
    path: Path, net: nn.Module, ema: nn.Module | None, optimiser: torch.optim.Optimizer, record: dict[str, Any]
) -> None:
    """Write the checkpoint atomically: a kill at any moment leaves the old file or the new one.

    Raises:
        Refused: if the disk is full or read-only.
    """
    state = {f"net.{name}": t for name, t in net.state_dict().items()}
    state |= {f"ema.{name}": t for name, t in ema.state_dict().items()} if ema is not None else {}
    moments = optimiser.state_dict()["state"]
    state |= {f"adam.{i}.{name}": t for i, entry in moments.items() for name, t in entry.items()}
    seen: set[int] = set()
    for name, t in state.items():  # tied weights share memory, which the format does not allow
        t = t.detach().cpu().contiguous()
        state[name] = t.clone() if t.data_ptr() in seen else t
        seen.add(t.data_ptr())
    told = {"memlib": json.dumps(record | {"checksum": _checksum(record, state)})}
    replace_file(path, lambda beside: save_file(state, beside, told))


def resume(
    path: Path,
    net: nn.Module,
    ema: nn.Module | None,
    optimiser: torch.optim.Optimizer,
    settings: dict[str, Any],
    steps: int,
) -> int:
    """Load the checkpoint, if there is one, and return the number of its steps.

    Nothing is changed before all of it is known to fit. A checkpoint without a checksum, of memlib 0.2.0 or before, is
    read if it is complete.

    Raises:
        Refused: for a file that is no checkpoint or is damaged, one of other settings, one of more steps, and one whose
            tensors are not those of this network and its optimiser.
    """
    if not path.exists():
        return 0
    record, state = _read(path)
    sealed = "checksum" in record
    if sealed and record.pop("checksum") != _checksum(record, state):
        raise Refused(f"the checkpoint {path} is damaged: give another folder, or delete it to start over")
    for name, new in settings.items():
        if (old := record["settings"].get(name)) != new:
            differs = "of another network" if name == "network" else f"made with {name}={old}, not {new}"
            raise Refused(f"the checkpoint {path} is {differs}: give another folder, or delete it to start over")
    if record["step"] > steps:
        raise Refused(f"the checkpoint {path} is at step {record['step']}, beyond steps={steps}: give another folder")
    wanted = _wanted(net, ema, optimiser)
    found = {name: tuple(t.shape) for name, t in state.items()}
    moments = {name for name in wanted if name.startswith("adam.")}
    optional = moments if sealed else set()  # a parameter that no loss has reached has no moments
    misfits = [name for name in found if wanted.get(name) != found[name]]
    misfits += [name for name in wanted if name not in found and name not in optional]
    if misfits:
        raise Refused(
            f"the checkpoint {path} is of another version, which differs in {misfits[0]!r}: give another folder, or "
            "delete it to start over"
        )

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}

    net.load_state_dict(part("net."))
    if ema is not None:
        ema.load_state_dict(part("ema."))
    kept: dict[int, dict[str, Tensor]] = {}
    for name, t in part("adam.").items():
        index, entry = name.split(".")
        kept.setdefault(int(index), {})[entry] = t
    optimiser.load_state_dict({"state": kept, "param_groups": optimiser.state_dict()["param_groups"]})
    return record["step"]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record in the header of a checkpoint, and its tensors. Raises Refused for another file."""
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {})["memlib"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if type(record["step"]) is not int or record["step"] < 1 or not isinstance(record["settings"], dict):
            raise KeyError("step or settings")  # of no training
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise Refused(
            f"{path} is not a training checkpoint: give another folder, or delete it to start over"
        ) from error
    except OSError as error:
        raise Refused(
            f"{path} cannot be read ({error.strerror or error}): make it readable, or give another folder"
        ) from error
    return record, state


def _wanted(net: nn.Module, ema: nn.Module | None, optimiser: torch.optim.Optimizer) -> dict[str, tuple[int, ...]]:
    """The names and shapes of everything in a complete checkpoint."""
    wanted = {f"net.{name}": tuple(t.shape) for name, t in net.state_dict().items()}
    wanted |= {f"ema.{name}": tuple(t.shape) for name, t in ema.state_dict().items()} if ema is not None else {}
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    for i, p in enumerate(trained):
        shape = tuple(p.shape)
        wanted |= {f"adam.{i}.step": (), f"adam.{i}.exp_avg": shape, f"adam.{i}.exp_avg_sq": shape}
    return wanted


def _checksum(record: dict[str, Any], state: dict[str, Tensor]) -> str:
    """Of what stands in the file: the record as text, and the tensors in the order of their names."""
    return fingerprint(json.dumps(record, sort_keys=True), dict(sorted(state.items())))
