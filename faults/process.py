"""A forked process that does one thing, and how it ended: with a report, in a sentence, by a kill, or not at all.

Forked and not started: torch is imported already, so a case costs what its work costs. The parent must have one thread.
"""

import contextlib
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from memlib.errors import Refused

LIMIT = 600.0  # seconds after which a process counts as hung


class Ended(NamedTuple):
    """`how` is done, refused, failed, killed or hung; `told` the report, the sentence or the traceback."""

    how: str
    told: Any = None


class Process:
    """`work(*arguments)` in a process of its own, whose report must be something that JSON can hold."""

    def __init__(self, work: Callable[..., Any], *arguments: Any) -> None:
        self._read, write = os.pipe()
        self._started, self.struck = time.monotonic(), 0
        self.pid = os.fork()
        if not self.pid:
            os.close(self._read)
            _inside(write, work, arguments)
        os.close(write)

    def end(self, kill_after: float | None = None, victims: Callable[[int], list[int]] | None = None) -> Ended:
        """Wait for the end; SIGKILL after so many seconds from the start, where they are given.

        `victims` names from the process which processes are killed; None is the process itself. Where it lives on, it
        is waited for, and `struck` says how many were.
        """
        limit = LIMIT if kill_after is None else kill_after
        parts = []
        while True:
            left = self._started + limit - time.monotonic()
            if not select.select([self._read], [], [], max(0, left))[0]:
                due = kill_after is not None and not self.struck
                hit = victims(self.pid) if due and victims else [self.pid]
                self.struck += sum(map(_struck, hit))
                if self.pid not in hit:
                    limit, kill_after = kill_after + LIMIT, None
                    continue
                found = Ended("killed" if due else "hung")
                break
            part = os.read(self._read, 1 << 16)
            if part:
                parts.append(part)
                continue
            found = Ended(*json.loads(b"".join(parts))) if parts else Ended("failed", "the process ended on its own")
            break
        os.close(self._read)
        os.waitpid(self.pid, 0)
        return found

    def sweep(self) -> None:
        """End the workers that it left behind, and wait a moment until they are gone."""
        with contextlib.suppress(ProcessLookupError):
            for _ in range(100):
                os.killpg(self.pid, signal.SIGKILL)
                time.sleep(0.01)


def workers(pid: int) -> list[int]:
    """The worker processes that a process has started for a pool."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
    return sorted(found)


def _struck(pid: int) -> bool:
    """Whether there was such a process to kill."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def alone(work: Callable[..., Any], *arguments: Any, kill_after: float | None = None) -> Ended:
    """One process from its start to its end."""
    return Process(work, *arguments).end(kill_after)


def _inside(write: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """The life of the child: nothing of it reaches the parent's terminal, and it never returns."""
    try:
        os.setsid()  # its workers are a group with it
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        told = ("done", work(*arguments))
    except Refused as refused:
        told = ("refused", str(refused))
    except BaseException:
        told = ("failed", traceback.format_exc()[-3000:])
    try:
        with os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps(told).encode())
    finally:
        os._exit(0)
