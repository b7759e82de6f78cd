"""Do verdicts change with bfloat16? The study of chapter 2, shrunk, trained in bfloat16 and in float32 on one GPU.

Training takes bfloat16 by itself where the GPU has it. Both runs share images, seeds and settings and differ in nothing
else. `python -m benchmarks.precision` writes results/gpu/precision.json: each claim with both figures and verdicts.
"""

import argparse
import functools
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

from memlib import train
from memlib.chapters import claims
from memlib.papers.side import study
from memlib.run import begin

PATH = Path(__file__).parent.parent / "results" / "gpu" / "precision.json"
GROUPS = ("thresholds", "weights", "arms")
SMALL = {
    "data": "faces:identity,n=4000", "size": 16, "widths": [32, 64], "n_train": 300, "train_steps": 1500,
    "n_samples": 500, "n_random": 2000, "n_synthetic": 1500, "student_steps": 200, "clusters": 100, "cohesion": 0.5,
}  # fmt: skip


def found(precision: str, device: str, settings: study.Settings) -> tuple[dict[str, dict], float]:
    """The claims of one run by id, and its seconds."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, MEMLIB_CACHE=cache):
        fit = functools.partial(train.fit, precision=None if precision == "bf16" else precision)
        with mock.patch.object(train, "fit", fit):
            results = study.run(settings, begin(study.CHAPTER, "gpu", device=device, processes=1), GROUPS)
    return {claim.id: claim.record("gpu") for claim in study.verdicts(results)}, time.perf_counter() - began


def main(arguments: list[str] | None = None) -> int:
    """Write the table, and say how many verdicts agree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--mlp", action="store_true", help="the perceptron, where diffusers is not installed")
    chosen = parser.parse_args(arguments)
    settings = replace(study.SCALES["gpu"], **SMALL, network="mlp" if chosen.mlp else "unet")
    runs = {precision: found(precision, chosen.device, settings) for precision in ("bf16", "fp32")}
    (low, quick), (high, slow) = runs["bf16"], runs["fp32"]
    rows = [
        {"claim": name, **{p: {key: one[name][key] for key in ("verdict", "figure", "interval", "n")}
                           for p, (one, _) in runs.items()}}
        for name in low
    ]  # fmt: skip
    same = sum(low[name]["verdict"] == high[name]["verdict"] for name in low)
    device = begin("precision", "gpu", device=chosen.device).device
    where = claims.provenance(device, asdict(settings)) | {"seconds": {"bf16": round(quick), "fp32": round(slow)}}
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps({"provenance": where, "agree": [same, len(low)], "claims": rows}, indent=1) + "\n")
    print(f"{same} of {len(low)} verdicts agree; {quick:.0f} s in bfloat16, {slow:.0f} s in float32")
    return 0


if __name__ == "__main__":
    sys.exit(main())
