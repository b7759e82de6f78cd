"""Run every benchmark in a process of its own, one thread each, and write results/benchmarks-cpu.json.

`python -m benchmarks` from the root of the repository; names of files run those alone and keep the other rows:
`python -m benchmarks mmd frechet`. A row: path, peer, size, ratio (theirs / ours, above 1: ours is faster), spread
of the ratio between turns, target, agrees, reason; the processor and the version of torch stand in `machine`.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "benchmarks-cpu.json"
HELPERS = {"__main__", "interleaved"}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def machine() -> str:
    """The processor's name, and what the numbers were taken with."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, 1 thread, torch {torch.__version__}"


def rows(name: str) -> list[dict]:
    """The rows that `benchmarks/<name>.py` prints."""
    environment = os.environ | dict.fromkeys(THREADS, "1")
    command = [sys.executable, str(HERE / f"{name}.py")]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return [json.loads(line) | {"benchmark": name, "machine": machine()} for line in lines]


def main() -> None:
    """Run what is named, or everything, and write the rows as they come."""
    names = sorted({path.stem for path in HERE.glob("*.py")} - HELPERS)
    wanted = sys.argv[1:] or names
    if unknown := set(wanted) - set(names):
        sys.exit(f"no benchmark is called {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
    before = json.loads(RESULTS.read_text(encoding="utf8")) if RESULTS.exists() else []
    found = {name: [row for row in before if row["benchmark"] == name] for name in names}
    for name in wanted:
        print(f"{name} ...", flush=True)
        found[name] = rows(name)
        for row in found[name]:
            met = "" if row["ratio"] >= row["target"] else f", short of {row['target']}"
            print(f"  {row['ratio']:8.2f}x  {row['peer']}, {row['size']}{met}{'' if row['agrees'] else ', DIFFERS'}")
        RESULTS.parent.mkdir(exist_ok=True)
        every = [json.dumps(row) for name in names for row in found[name]]
        RESULTS.write_text("[\n  " + ",\n  ".join(every) + "\n]\n", encoding="utf8")


if __name__ == "__main__":
    main()
