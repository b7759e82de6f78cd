"""One run of an experiment: its scale, seed, device and processes, and a cache for slow results."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from memlib.cache import store
from memlib.cache._fingerprint import fingerprint
from memlib.cache.atomic import writing
from memlib.errors import Refused, usable


@dataclass(frozen=True)
class Run:
    """The scale, seed and resources of one experiment. `begin` makes it, and a study takes it with its settings.

    Arguments:
        name: names the artefacts, such as the chapter "02_side".
        scale: fast, book, gpu or paper. It names records and is no part of a cache key: what it changes are settings.
        seed: the key of all random numbers.
        device: of networks and samples.
        processes: the largest number of worker processes of `each`.
        started: when the run began, by `time.perf_counter`.
    """

    name: str
    scale: str = field(default="fast", compare=False)
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    processes: int = field(default=1, compare=False)
    started: float = field(compare=False, repr=False, default_factory=time.perf_counter)

    def cached(self, name: str, make: Callable[..., Any], *inputs: Any) -> Any:
        """`make(*inputs)`, computed once for this code, inputs and seed, then read from disk: `cache.cached`."""
        return store.cached(f"{self.name}-{name}", make, *inputs, seed=self.seed)

    def trained(
        self,
        name: str,
        build: Callable[[], nn.Module],
        fit: Callable[..., nn.Module | None],
        *inputs: Any,
        seed: int | None = None,
    ) -> nn.Module:
        """A network, built and trained once for these inputs and this seed, then read from disk: `cache.trained`."""
        chosen = self.seed if seed is None else seed
        return store.trained(build, fit, *inputs, name=f"{self.name}-{name}", seed=chosen)

    def folder(self, *inputs: Any) -> Path:
        """A folder for checkpoints and shards, kept for the next run and named by the content of `inputs`.

        Pass everything that the files depend on and nothing else, so that a run with another unrelated setting finds
        them.

        Raises:
            Refused: if it cannot be created.
        """
        path = store.folder() / "checkpoints" / f"{self.name}-{fingerprint(inputs, self.device)[:32]}"
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def each(self, name: str, make: Callable[..., Any], inputs: Iterable[Sequence[Any]]) -> list[Any]:
        """`[self.cached(name, make, *one) for one in inputs]`, up to `processes` of them at a time.

        The calls must be independent, and `make` must be a function of a module. Results have the same bits for every
        number of processes. Results that are already in the cache are read. Where another run with the same cache is at
        one of the calls, this run takes the others first: so any number of jobs share the work.
        """
        return self.together([(name, make, one) for one in inputs])

    def together(self, calls: Iterable[tuple[str, Callable[..., Any], Sequence[Any]]]) -> list[Any]:
        """As `each`, for calls of several functions: `[self.cached(name, make, *one) for name, make, one in calls]`.

        One pool of processes serves them all, in this order.
        """
        calls = [(name, make, tuple(one)) for name, make, one in calls]
        wanted = [(self._place(*call), *call[1:], self.seed) for call in calls]
        missing = [call for call in wanted if not call[0].exists()]
        if min(self.processes, len(missing)) < 2:
            for call in tqdm(missing) if missing else ():  # `disable=` would overrule TQDM_DISABLE
                store.attempt(*call)
        else:
            with _pool(self.processes) as pool:
                waiting = [pool.submit(_attempted, *call) for call in missing]
                for one in tqdm(waiting):
                    one.result()
        # What another run was at is waited for here.
        return [store.kept(*call) for call in wanted]

    def cascade(
        self,
        calls: Iterable[tuple[str, Callable[..., Any], Sequence[Any]]],
        then: Callable[[int], Iterable[tuple[str, Callable[..., Any], Sequence[Any]]]],
    ) -> None:
        """Fill the cache with calls as those of `together`, and with those that `then(i)` names when call i has ended.

        What follows from one call need not wait for the others. `then` runs in this process, once for each call.
        """
        calls = list(calls)
        if self.processes < 2:
            self.together(calls)
            self.together([call for number in range(len(calls)) for call in then(number)])
            return
        waiting: dict[Future, int | None] = {}
        with _pool(self.processes) as pool, tqdm(total=0) as bar:

            def ask(call: tuple[str, Callable[..., Any], Sequence[Any]], number: int | None = None) -> bool:
                """Whether the call must be waited for."""
                name, make, inputs = call[0], call[1], tuple(call[2])
                place = self._place(name, make, inputs)
                if place.exists():
                    return False
                waiting[pool.submit(_attempted, place, make, inputs, self.seed)] = number
                bar.total = bar.total + 1
                return True

            ended = [number for number, call in enumerate(calls) if not ask(call, number)]
            while ended or waiting:
                for number in ended:
                    for call in then(number):
                        ask(call)
                done = wait(waiting, return_when=FIRST_COMPLETED).done
                for future in done:
                    future.result()
                    bar.update()
                ended = [number for number in map(waiting.pop, done) if number is not None]

    def _place(self, name: str, make: Callable[..., Any], inputs: tuple[Any, ...]) -> Path:
        return store.place(f"{self.name}-{name}", make, inputs, self.seed)


def begin(
    name: str, scale: str = "fast", seed: int = 0, *, device: str | None = None, processes: int | None = None
) -> Run:
    """Make the arithmetic of this process repeatable and return the `Run`.

    Arguments:
        name: names the artefacts.
        scale: `fast` runs on the CPU; larger scales run on an accelerator (CUDA, MPS or XPU) if torch sees one.
        seed: of torch's global generator, and the key of all random numbers.
        device: such as "cpu" or "cuda:1"; None is MEMLIB_DEVICE, or follows the scale.
        processes: worker processes for independent parts; None is MEMLIB_PROCESSES, or 2 if there are two cores.

    Raises:
        Refused: for the scales `gpu` and `paper` without an accelerator or a `device`, and for a device that torch
            lacks.
    """
    chosen = _device(scale, device or os.environ.get("MEMLIB_DEVICE"))
    if processes is None:
        processes = int(os.environ.get("MEMLIB_PROCESSES") or min(2, os.cpu_count() or 1))
    _repeatable(chosen.type)
    torch.manual_seed(seed)
    return Run(name, scale, seed, chosen, 1 if chosen.type != "cpu" else max(1, processes))


def _device(scale: str, wanted: str | None) -> torch.device:
    found = torch.accelerator.current_accelerator(check_available=True)
    if wanted is None:
        if scale in ("gpu", "paper") and found is None:
            raise Refused(f"scale {scale!r} needs an accelerator and torch sees none here: choose 'fast' or 'book'")
        wanted = "cpu" if scale == "fast" or found is None else found.type
    with usable(wanted):
        return torch.empty(0, device=wanted).device


def _repeatable(kind: str) -> None:
    """Deterministic kernels, and one thread."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    # Some kernels of a GPU (scatter, interpolation backwards) have no deterministic form: a warning there, not a stop.
    # `torch.use_deterministic_algorithms` does the same and imports torch's compiler, for more than a second.
    torch.set_deterministic_debug_mode("error" if kind == "cpu" else "warn")
    # That also fills every new tensor with NaN, for code that reads what nobody wrote: 2 % of a small network's step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # made at import
    # One thread, since two would sum in another order: bits must not depend on OMP_NUM_THREADS. Two threads gain little
    # on the networks of a chapter, and on two busy cores they were ten times slower.
    torch.set_num_threads(1)


_kept: dict[tuple[Any, ...], ProcessPoolExecutor] = {}  # one pool at most


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes, kept for the next calls of this process: starting one and importing torch takes seconds.

    They are ended where a call fails, and replaced where the default dtype or the environment is another one. Raises
    Refused if the system, or somebody, ends one of them.
    """
    dtype = torch.get_default_dtype()
    key = (workers, dtype, os.getpid(), frozenset(os.environ.items()))
    if key not in _kept:
        for other in _kept.values():
            other.shutdown()
        _kept.clear()
        _kept[key] = ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_worker, initargs=(dtype,)
        )
    try:
        yield _kept[key]
    except BaseException as error:
        _kept.pop(key).shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise Refused(
                "a worker process was ended from outside, as a system does that is short of memory: start again to go "
                "on, with MEMLIB_PROCESSES=1 if it happens again"
            ) from error
        raise


def _worker(dtype: torch.dtype) -> None:
    """Set a worker process up like its parent, and let it end with it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _repeatable("cpu")
    torch.set_default_dtype(dtype)


def _attempted(*call: Any) -> None:
    """`store.attempt(*call)`. Ctrl-C reaches a worker too: it stops a call, and never a worker that waits for one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        store.attempt(*call)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent() -> None:
    """Where the parent is killed, as Jupyter kills a kernel, a worker would wait for calls for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
