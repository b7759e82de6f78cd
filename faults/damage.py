"""Files that changed on the disk, checkpoints of another version, and a clock that jumps."""

import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from faults import jobs, kills
from faults.cases import Found, Kind, one, scratch, sentence
from faults.process import alone
from memlib.cache import checkpoints

CHANGES = ("truncated", "a bit", "a zeroed block", "empty", "gone", "garbage", "another file")


def damaged(seed: int) -> Found:
    """A finished job of which one file was changed, and the job again: the file is made again, or named."""
    name = list(jobs.JOBS)[seed % len(jobs.JOBS)]
    job, chance = jobs.JOBS[name], random.Random(f"damaged {seed}")
    with scratch() as place:
        folder = Path(place)
        alone(_short if name == "training" and seed % 3 else job, folder)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".lock")]
        path = chance.choice(files)
        change(path, chance.choice(CHANGES), chance, files)
        return mended(job, folder, path)


def mended(job: kills.Job, folder: Path, path: Path) -> Found:
    """Run the job again; where it names the file and asks to delete it, do so, and run it once more."""
    for turn in range(3):
        ended = alone(job, folder)
        if ended.how == "done":
            if ended.told["digest"] != kills.reference(job)[0]:
                return one("wrong", f"{job.__name__}: other bits after {path.name} was damaged")
            return one("refused" if turn else "recovered")
        if ended.how != "refused" or not sentence(ended.told):
            return one("wrong", f"{job.__name__}: {ended.how}: {ended.told}")
        if str(folder) not in ended.told or "delete" not in ended.told:
            return one("wrong", f"{job.__name__}: nothing to act on: {ended.told}")
        named = [Path(text) for text in re.findall(rf"{re.escape(str(folder))}[\w./-]*", ended.told)]
        for one_of_them in named:  # what a person would do
            shutil.rmtree(one_of_them) if one_of_them.is_dir() else one_of_them.unlink(missing_ok=True)
    return one("wrong", f"{job.__name__}: still refused: {ended.told}")


def change(path: Path, how: str, chance: random.Random, files: list[Path]) -> None:
    """Damage one file in place."""
    content = bytearray(path.read_bytes())
    if how == "gone":
        return path.unlink()
    if how == "another file":
        content = bytearray(chance.choice(files).read_bytes())
    elif how == "empty" or not content:
        content = bytearray()
    elif how == "truncated":
        content = content[: chance.randrange(len(content))]
    elif how == "a bit":
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif how == "a zeroed block":
        start = chance.randrange(len(content))
        content[start : start + 512] = bytes(len(content[start : start + 512]))
    else:
        content = bytearray(chance.randbytes(len(content)))
    path.write_bytes(content)


def _short(folder: Path) -> dict[str, Any]:
    """The training, stopped by force after half of its steps: its checkpoint is then one to go on from."""
    net_steps = jobs.STEPS // 2
    write, written = checkpoints.write, []

    def stop(*arguments: Any) -> None:
        write(*arguments)
        written.append(1)
        if 2 * len(written) >= net_steps:
            os._exit(0)

    checkpoints.write = stop
    return jobs.training(folder)


def other_version(seed: int) -> Found:
    """A checkpoint whose header or tensors are those of another version, and the training again."""
    chance = random.Random(f"version {seed}")
    with scratch() as place:
        folder = Path(place)
        alone(_short, folder)
        path = folder / "training" / "training.safetensors"
        with safe_open(path, "pt") as file:
            record = json.loads(file.metadata()["memlib"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        text = VERSIONS[seed % len(VERSIONS)](record, state, chance)
        save_file(state, path, {"memlib": text if text is not None else json.dumps(record)})
        return mended(jobs.training, folder, path)


def _without(what: str) -> Callable:
    def change(record: dict, state: dict, chance: random.Random) -> None:
        for name in [name for name in state if name.startswith(what)]:
            del state[name]

    return change


def _reshaped(record: dict, state: dict, chance: random.Random) -> None:
    name = chance.choice(sorted(name for name in state if state[name].dim() and not name.startswith("adam")))
    state[name] = torch.zeros(3, 3)


def _renamed(record: dict, state: dict, chance: random.Random) -> None:
    name = chance.choice(sorted(state))
    state[f"{name}.old"] = state.pop(name)


def _setting(record: dict, state: dict, chance: random.Random) -> None:
    record["settings"][chance.choice(sorted(record["settings"]))] = "before"


def _lacking(record: dict, state: dict, chance: random.Random) -> None:
    del record["settings"][chance.choice(sorted(record["settings"]))]


def _further(record: dict, state: dict, chance: random.Random) -> None:
    state["optimiser.0.exp_avg"] = torch.zeros(2)
    record["format"] = 7


def _step(record: dict, state: dict, chance: random.Random) -> None:
    record["step"] = chance.choice([None, "10", -3, 10**9, 2.5, [4]])


def _text(*texts: str) -> Callable:
    return lambda record, state, chance: chance.choice(texts)


VERSIONS: tuple[Callable, ...] = (
    _without("adam"), _without("ema"), _without("net"), _reshaped, _renamed, _setting, _lacking, _further, _step,
    _text("[]", "null", "3", '"step"', "{}", '{"step": 20}', '{"settings": []}', '{"step": 20, "settings": null}'),
)  # fmt: skip


def clock(seed: int) -> Found:
    """A clock that jumps by up to ten years, either way, again and again, while a job is killed and goes on."""
    name = list(jobs.JOBS)[seed % len(jobs.JOBS)]
    job, chance = jobs.JOBS[name], random.Random(f"clock {seed}")
    with scratch() as place:
        folder = Path(place)
        first = alone(_jumping, job, folder, seed, kill_after=chance.uniform(0.2, 0.9) * kills.reference(job)[1])
        if first.how not in ("killed", "done"):
            return one("wrong", f"{name}: {first.how}: {first.told}")
        for path in folder.rglob("*"):
            if path.is_file():
                when = time.time() + chance.uniform(-1, 1) * 3e8
                os.utime(path, (when, when))
        before = kills.state(folder)
        return kills.judged(job, before, folder, alone(_jumping, job, folder, seed + 1), first.how == "killed")


def _jumping(job: kills.Job, folder: Path, seed: int) -> dict[str, Any]:
    chance, real = random.Random(seed), time.time
    os.environ.pop("TQDM_DISABLE", None)  # a bar computes with the time, too
    time.time = lambda: real() + chance.choice((0, -3e8, 3e8, -3600, 3600))
    return job(folder)


KINDS = {
    "damaged file": Kind(64, damaged, 4),
    "checkpoint of another version": Kind(20, other_version, 3),
    "clock that jumps": Kind(16, clock, 2),
}
