"""A disk that is full, and a folder that cannot be written: one sentence, and once there is room the same bits.

The full disk is a tmpfs in a mount namespace of the case's own, where the system allows one; else a limit on the size
of a file. Whoever runs this as root becomes nobody for the folder that cannot be written.
"""

import contextlib
import ctypes
import os
import random
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import jobs, kills
from faults.cases import Found, Kind, one, scratch, sentence
from faults.process import Ended, Process, alone

_NEWNS, _NOBODY = 0x00020000, 65534


def full(seed: int) -> Found:
    """A job on a disk of a random size below what it needs, then room, then the rest of the job."""
    return _inside(_full, seed)


def _full(seed: int) -> dict[str, Any]:
    name = list(jobs.JOBS)[seed % len(jobs.JOBS)]
    job, chance = jobs.JOBS[name], random.Random(f"full {seed}")
    needed = _needed(job)
    with scratch() as place:
        folder, room = Path(place), chance.uniform(0.02, 0.98)
        mounted = _mount(folder, max(4096, int(room * needed["all"])))
        try:
            limit = None if mounted else max(512, int(room * needed["largest"]))
            ended = alone(_limited, job, folder, limit)
            if mounted:
                subprocess.run(["mount", "-o", f"remount,size={64 << 20}", str(folder)], check=True)
            return _after(job, folder, ended)._asdict()
        finally:
            if mounted:
                subprocess.run(["umount", "-l", str(folder)], check=True)


def read_only(seed: int) -> Found:
    """A folder that nobody may write: empty, half filled or complete. What is complete is read, as ever."""
    name = list(jobs.JOBS)[seed % len(jobs.JOBS)]
    job, chance = jobs.JOBS[name], random.Random(f"read-only {seed}")
    digest, length = kills.reference(job)
    with scratch() as place:
        folder, part = Path(place), (seed // len(jobs.JOBS)) % 3
        if part:
            alone(job, folder, kill_after=chance.uniform(0.3, 0.9) * length if part == 1 else None)
        _modes(folder, False)
        ended = alone(_as_nobody, job, folder)
        _modes(folder, True)
        if part == 2 and ended.how == "done" and ended.told["digest"] != digest:
            return one("wrong", f"{name}: other bits from a complete folder that cannot be written")
        return _after(job, folder, ended)


def _after(job: kills.Job, folder: Path, ended: Ended) -> Found:
    """A sentence or a full end, and then the rest of the job."""
    if ended.how == "refused" and not sentence(ended.told):
        return one("wrong", f"{job.__name__}: no sentence: {ended.told}")
    if ended.how not in ("done", "refused"):
        return one("wrong", f"{job.__name__}: {ended.how}: {ended.told}")
    before = kills.state(folder)
    found = kills.judged(job, before, folder, alone(job, folder), 0)
    return one("refused") if ended.how == "refused" and found.counts.get("recovered") else found


def _inside(case: Callable[[int], dict[str, Any]], seed: int) -> Found:
    """The case in a process and, where the system allows it, in a mount namespace of its own."""
    for job in jobs.JOBS.values():
        kills.reference(job)  # here, once, and not in each process
        _needed(job)

    def apart() -> dict[str, Any]:
        if ctypes.CDLL(None, use_errno=True).unshare(_NEWNS) == 0:
            subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True)
        return case(seed)

    ended = Process(apart).end()
    return Found(**ended.told) if ended.how == "done" else one("wrong", f"the case itself: {ended.how}: {ended.told}")


def _mount(folder: Path, size: int) -> bool:
    """Whether the folder is now a disk of so many bytes."""
    if os.geteuid():
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


_SIZES: dict[str, dict[str, int]] = {}


def _needed(job: kills.Job) -> dict[str, int]:
    """What a job writes, in bytes: all of it, and its largest file."""
    if job.__name__ not in _SIZES:
        with scratch() as place:
            alone(job, Path(place))
            sizes = [path.stat().st_size for path in Path(place).rglob("*") if path.is_file()]
        whole = sum(-(-size // 4096) * 4096 for size in sizes)
        _SIZES[job.__name__] = {"all": whole, "largest": max(sizes)}
    return _SIZES[job.__name__]


def _limited(job: kills.Job, folder: Path, limit: int | None) -> dict[str, Any]:
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return job(folder)


def _as_nobody(job: kills.Job, folder: Path) -> dict[str, Any]:
    if not os.geteuid():
        os.setgroups([])
        os.setegid(_NOBODY)
        os.seteuid(_NOBODY)
    return job(folder)


def _modes(folder: Path, writable: bool) -> None:
    """Let everybody read all below a folder, and nobody but root write it unless `writable`."""
    for path in [folder, *folder.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):
            path.chmod((0o755 if path.is_dir() else 0o644) if writable else (0o555 if path.is_dir() else 0o444))


KINDS = {"full disk": Kind(32, full, 4), "read-only cache": Kind(24, read_only, 4)}
