"""One row of a benchmark: a peer and ours, timed in turns in one process, one thread, minimum wall time."""

import time
from collections.abc import Callable

from threadpoolctl import threadpool_limits


def seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Minimum wall time of a call."""
    times = []
    with threadpool_limits(1):
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
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
) -> dict:
    """Ratio of the minimum wall times, theirs / ours, with the smallest and largest ratio of a turn as its spread.

    `agree` is asked of the first results of both. `reason` says what bounds the ratio, or what else must be known.
    """
    times, results = [], ()
    with threadpool_limits(1):
        for _ in range(repeats):
            start = time.perf_counter()
            their_result = theirs()
            middle = time.perf_counter()
            our_result = ours()
            times.append((middle - start, time.perf_counter() - middle))
            results = results or (their_result, our_result)
    slow, fast = (min(t) for t in zip(*times, strict=True))
    ratios = sorted(a / b for a, b in times)
    return {
        "path": path, "peer": peer, "size": size,
        "ratio": round(slow / fast, 2), "spread": [round(ratios[0], 2), round(ratios[-1], 2)], "target": target,
        "agrees": bool(agree(*results)), "reason": reason,
    }  # fmt: skip
