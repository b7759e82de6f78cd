"""Run every benchmark in a process of its own and write results/benchmarks-cpu.json, or -gpu.json with `--device cuda`.

`python -m benchmarks` from the root of the repository; names of files run those alone and keep the other rows:
`python -m benchmarks mmd frechet`. On the CPU each runs on one thread. A row: path, peer, size, ratio (theirs / ours,
above 1: ours is faster), spread of the ratio between turns, target, agrees, reason, `of_limit` (the time of what no
such path can do without, such as its bare products, over ours), and on a GPU the seconds of both; the processor or the
card and the version of torch stand in `machine`. A benchmark whose peer is not installed has a row that says so.
`python -m benchmarks growth` measures how each path grows instead (`benchmarks/growth.py`).
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
HELPERS = {"__main__", "interleaved", "gpu", "growth", "precision"}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ON_GPU = ("sampling", "guided_sweep", "copy_scoring", "likelihood", "learning_rates")  # the others measure CPU paths
PEERS = {"sampling": "diffusers"}  # not on every machine that has a GPU


def machine(device: str) -> str:
    """The name of the processor or the card, and what the numbers were taken with."""
    if device != "cpu":
        card = torch.get_device_module(device).get_device_name(device)
        return f"{card}, torch {torch.__version__}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, 1 thread, torch {torch.__version__}"


def rows(name: str, device: str, limit: float | None) -> list[dict]:
    """The rows that `benchmarks/<name>.py` prints; what it printed until `limit` seconds had passed."""
    peer = PEERS.get(name)
    if peer and importlib.util.find_spec(peer) is None:
        return [{"benchmark": name, "skipped": f"{peer} is not installed here", "machine": machine(device)}]
    environment = os.environ | {"MEMLIB_DEVICE": device}
    environment |= dict.fromkeys(THREADS, "1") if device == "cpu" else {}
    command = [sys.executable, str(HERE / f"{name}.py")]
    try:
        printed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=limit).stdout
    except subprocess.TimeoutExpired as stopped:
        printed = stopped.stdout or b""
        print(f"  stopped after {limit:.0f} s", flush=True)
    lines = [line for line in printed.decode().splitlines() if line.startswith("{") and line.endswith("}")]
    return [json.loads(line) | {"benchmark": name, "machine": machine(device)} for line in lines]


def told(row: dict) -> str:
    """One line for the terminal."""
    if "skipped" in row:
        return f"  skipped: {row['skipped']}"
    met = "" if row["ratio"] >= row["target"] else f", short of {row['target']}"
    return f"  {row['ratio']:8.2f}x  {row['peer']}, {row['size']}{met}{'' if row['agrees'] else ', DIFFERS'}"


def main(arguments: list[str] | None = None) -> int:
    """Run what is named, or everything, and write the rows as they come."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--device", default="cpu", help="such as cuda; default cpu")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="of each benchmark; default none")
    chosen = parser.parse_args(arguments)
    every = sorted({path.stem for path in HERE.glob("*.py")} - HELPERS)
    names = [name for name in every if chosen.device == "cpu" or name in ON_GPU]
    if unknown := set(chosen.names) - set(names):
        parser.error(f"no benchmark for {chosen.device} is called {', '.join(sorted(unknown))}: {', '.join(names)}")
    path = RESULTS / f"benchmarks-{'cpu' if chosen.device == 'cpu' else 'gpu'}.json"
    before = json.loads(path.read_text(encoding="utf8")) if path.exists() else []
    found = {name: [row for row in before if row["benchmark"] == name] for name in names}
    failed = []
    for name in chosen.names or names:
        print(f"{name} ...", flush=True)
        try:
            now = rows(name, chosen.device, chosen.limit)
        except subprocess.CalledProcessError as error:
            failed.append(name)
            print(f"  failed with code {error.returncode}", flush=True)
            continue
        print("\n".join(map(told, now)) or "  no row: those of earlier runs are kept", flush=True)
        if now and not (found[name] and "skipped" in now[0]):
            found[name] = now
        path.parent.mkdir(exist_ok=True)
        lines = [json.dumps(row) for name in names for row in found[name]]
        path.write_text("[\n  " + ",\n  ".join(lines) + "\n]\n", encoding="utf8")
    return int(bool(failed))


if __name__ == "__main__":
    if sys.argv[1:2] == ["growth"]:
        from benchmarks.growth import main as grow

        sys.exit(grow(sys.argv[2:]))
    sys.exit(main())
