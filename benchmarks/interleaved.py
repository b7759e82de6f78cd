"""One row of a benchmark: a peer and ours, timed in turns in one process, one thread, minimum wall time.

MEMLIB_DEVICE names the device, the CPU by default. A row from another device has the times of both, in seconds.
"""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

DEVICE = torch.device(os.environ.get("MEMLIB_DEVICE", "cpu"))


def one_thread() -> AbstractContextManager:
    """Numpy's and SciPy's products on one thread, as torch's; on an accelerator they do not matter."""
    if DEVICE.type != "cpu":
        return nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def clock() -> float:
    """Seconds, once the device has done what it was asked."""
    if DEVICE.type != "cpu":
        torch.accelerator.synchronize(DEVICE)
    return time.perf_counter()


def compared(times: list[tuple[float, float]]) -> dict:
    """Ratio of the smallest times (theirs, ours), and of the turns the smallest and the largest ratio."""
    slow, fast = (min(t) for t in zip(*times, strict=True))
    ratios = sorted(a / b for a, b in times)
    found = {"ratio": round(slow / fast, 2), "spread": [round(ratios[0], 2), round(ratios[-1], 2)]}
    return found | ({} if DEVICE.type == "cpu" else {"seconds": [float(f"{slow:.3g}"), float(f"{fast:.3g}")]})


def seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Minimum wall time of a call."""
    times = []
    with one_thread():
        for _ in range(repeats):
            start = clock()
            run()
            times.append(clock() - start)
    return min(times)


def row(
    path: str,
    peer: str,
    size: str,
    theirs: Callable[[], object],
    ours: Callable[[], object],
    agree: Callable[[object, object], bool],
    target: float,
    repeats: int = 5,
    reason: str = "",
    limit: Callable[[], object] | None = None,
) -> dict:
    """Ratio of the minimum wall times, theirs / ours, with the smallest and largest ratio of a turn as its spread.

    `agree` is asked of the first results of both. `reason` says what bounds the ratio, or what else must be known.
    `limit` does what no such path can do without, such as its bare products, in the same turns: `of_limit` is its
    smallest time over ours.
    """
    times, least, results = [], [], ()
    with one_thread():
        for _ in range(repeats):
            start = clock()
            their_result = theirs()
            middle = clock()
            our_result = ours()
            end = clock()
            times.append((middle - start, end - middle))
            results = results or (their_result, our_result)
            if limit is not None:
                limit()
                least.append(clock() - end)
    size_of = {"path": path, "peer": peer, "size": size}
    found = size_of | compared(times) | {"target": target, "agrees": bool(agree(*results)), "reason": reason}
    return found | ({"of_limit": share(min(least), min(ours for _, ours in times))} if least else {})


def part_of(limit: Callable[[], object], ours: float, repeats: int = 3) -> float:
    """The time of what cannot be done without over ours: 1 is the limit."""
    return share(seconds(limit, repeats), ours)


def share(least: float, ours: float) -> float:
    """One time over another, to two decimals, or to two digits where it is small."""
    return round(least / ours, 2) if least > 0.1 * ours else float(f"{least / ours:.2g}")
