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
    """Write the checkpoint atomically: a kill at any moment leaves the old file or the new one."""
    state = {f"net.{name}": t for name, t in net.state_dict().items()}
    state |= {f"ema.{name}": t for name, t in ema.state_dict().items()} if ema is not None else {}
    moments = optimiser.state_dict()["state"]
    state |= {f"adam.{i}.{name}": t for i, entry in moments.items() for name, t in entry.items()}
    seen: set[int] = set()
    for name, t in state.items():  # tied weights share memory, which the format does not allow
        t = t.detach().cpu().contiguous()
        state[name] = t.clone() if t.data_ptr() in seen else t
        seen.add(t.data_ptr())
    replace_file(path, lambda beside: save_file(state, beside, {"memlib": json.dumps(record)}))


def resume(
    path: Path,
    net: nn.Module,
    ema: nn.Module | None,
    optimiser: torch.optim.Optimizer,
    settings: dict[str, Any],
    steps: int,
) -> int:
    """Load the checkpoint, if there is one, and return the number of its steps.

    Raises:
        Refused: for a file that is no checkpoint, one of other settings, and one of more steps.
    """
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {})["memlib"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, KeyError, ValueError) as error:
        raise Refused(
            f"{path} is not a training checkpoint: give another folder, or delete it to start over"
        ) from error
    for name, new in settings.items():
        if (old := record["settings"].get(name)) != new:
            differs = "of another network" if name == "network" else f"made with {name}={old}, not {new}"
            raise Refused(f"the checkpoint {path} is {differs}: give another folder, or delete it to start over")
    if record["step"] > steps:
        raise Refused(f"the checkpoint {path} is at step {record['step']}, beyond steps={steps}: give another folder")

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}

    net.load_state_dict(part("net."))
    if ema is not None:
        ema.load_state_dict(part("ema."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, t in part("adam.").items():
        index, entry = name.split(".")
        moments.setdefault(int(index), {})[entry] = t
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return record["step"]
