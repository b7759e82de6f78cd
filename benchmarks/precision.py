"""Do verdicts change with bfloat16? A study that was run on a GPU, run again with float32 training, side by side.

Training takes bfloat16 by itself where the GPU has it. `python -m benchmarks.precision study side --scale gpu ...`
takes the words of `memlib study`, reads what that left in results/gpu/cut, runs the same in float32 in a cache of its
own and writes results/gpu/precision.json: each claim with both figures and verdicts.
"""

import functools
import json
import os
import sys
import tempfile
from pathlib import Path
from unittest import mock

from memlib import papers, train
from memlib.cli import main as memlib

GPU = Path(__file__).parent.parent / "results" / "gpu"
KEPT = ("verdict", "figure", "interval", "n")


def claims(path: Path) -> dict[str, dict]:
    """The claims of a record by id."""
    return {claim["id"]: claim for claim in json.loads(path.read_text(encoding="utf8"))["claims"]}


def main(words: list[str]) -> int:
    """Run the study of `words` in float32 and compare; 1 if it fails."""
    name = papers.find(words[1]).CHAPTER
    low = GPU / "cut" / f"{name}.json"
    if not low.exists():
        sys.exit(f"{low} is missing: run memlib {' '.join(words)} --out results/gpu/cut first")
    with tempfile.TemporaryDirectory() as folder:
        fit = functools.partial(train.fit, precision="fp32")
        # One process, which the patch reaches.
        with mock.patch.dict(os.environ, MEMLIB_CACHE=folder), mock.patch.object(train, "fit", fit):
            if code := memlib([*words, "--processes", "1", "--out", folder]):
                return code
        high = Path(folder) / f"{name}.json"
        runs, where = {"bf16": claims(low), "fp32": claims(high)}, json.loads(high.read_text())["provenance"]
    rows = [
        {"claim": one, **{precision: {key: found[one][key] for key in KEPT} for precision, found in runs.items()}}
        for one in runs["bf16"]
        if one in runs["fp32"]
    ]
    same = sum(row["bf16"]["verdict"] == row["fp32"]["verdict"] for row in rows)
    page = {"provenance": where, "agree": [same, len(rows)], "claims": rows}
    (GPU / "precision.json").write_text(json.dumps(page, indent=1) + "\n", encoding="utf8")
    print(f"{same} of {len(rows)} verdicts agree between bfloat16 and float32")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
