"""Everything that only a GPU can show, in one script for the day that one is at hand: `python -m benchmarks.gpu`.

It needs torch with CUDA, numpy, scipy, scikit-learn and safetensors, no network and no notebook, and takes at most
eight minutes. Each part has a limit of its own and writes its results as they come, so a part that fails or is stopped
costs no other. Parts by name run those alone: `python -m benchmarks.gpu tests sampling`.

- tests: the device tests of the library on the GPU, among them the loops that must not wait for it.
- chapter: chapter 2 at the gpu scale, cut to some two minutes, into results/gpu/cut: no result of that scale. It
  trains in bfloat16.
- precision: the same in float32. Do the verdicts agree?
- copy_scoring, guided_sweep, likelihood, learning_rates, sampling: rows of results/benchmarks-gpu.json.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

HOME = Path(__file__).parent.parent
# Fewer and smaller images and fewer steps than the gpu scale; the arms, bands and tables of chapter 2 as they are.
CUT = {
    "data": "faces:identity,n=3000", "size": 16, "widths": "[64,128]", "n_train": 200, "train_steps": 500, "lr": 1e-3,
    "n_samples": 200, "n_random": 500, "n_synthetic": 500, "student_steps": 40, "clusters": 50,
    "networks": 1, "sweep": "[0,4,8]",
}  # fmt: skip
CLAIMS = "S1,S2,S5,S6"


def parts(device: str) -> dict[str, tuple[list[str], float]]:
    """The command of each part, after `python -m`, and its limit in seconds."""
    limits = {"copy_scoring": 50, "guided_sweep": 15, "likelihood": 25, "learning_rates": 30, "sampling": 100}
    bench = {
        name: (["benchmarks", name, "--device", device, "--limit", str(limit)], limit + 1.0)
        for name, limit in limits.items()
    }
    cut = [word for name, value in CUT.items() for word in ("--set", f"{name}={value}")]
    cut += [] if diffusers() else ["--set", "network=mlp"]
    chapter = ["memlib.cli", "study", "side", "--scale", "gpu", "--claims", CLAIMS, *cut]
    # Without the options of pyproject.toml, which name plugins that such a machine may lack.
    tests = ["pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "tests/devices"]
    tests += [f"--ignore=tests/devices/test_device_{part}.py" for part in ("studies", "chapters")]
    return {
        "tests": (tests, 40.0),
        "chapter": ([*chapter, "--out", "results/gpu/cut"], 120.0),
        "precision": (["benchmarks.precision", *chapter[1:]], 90.0),
        **bench,
    }


def diffusers() -> bool:
    """Whether diffusers, whose blocks the U-Net is made of, is installed."""
    import importlib.util

    return importlib.util.find_spec("diffusers") is not None


def main(arguments: list[str] | None = None) -> int:
    """Run the parts and print what each took; 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("names", nargs="*", metavar="PART")
    parser.add_argument("--device", default=os.environ.get("MEMLIB_DEVICE", "cuda"))
    chosen = parser.parse_args(arguments)
    every = parts(chosen.device)
    if unknown := set(chosen.names) - set(every):
        parser.error(f"no part is called {', '.join(sorted(unknown))}: choose from {', '.join(every)}")
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA GPU here: run this where one is, or name a --device")
    environment = os.environ | {"MEMLIB_DEVICE": chosen.device, "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HOME), os.environ.get("PYTHONPATH")]))
    bad = []
    for name in chosen.names or every:
        command, limit = every[name]
        print(f"\n== {name}: {' '.join(command)}", flush=True)
        started = time.perf_counter()
        try:
            code = subprocess.run([sys.executable, "-m", *command], cwd=HOME, env=environment, timeout=limit).returncode
        except subprocess.TimeoutExpired:
            code = f"stopped after {limit:.0f} s"
        print(f"== {name}: {time.perf_counter() - started:.0f} s, {'done' if code == 0 else code}", flush=True)
        bad += [name] if code else []
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
