"""Disturb everything, count what happens, and write results/faults.json: `python -m faults` or `make faults`.

Names of kinds run those alone; the other rows stay. A run that was stopped goes on: finished cases stand in
`runs/faults/`. `--sample` runs a few cases of each kind, in about a minute.
"""

import os

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # a process is forked with one thread
    os.environ[_threads] = "1"
os.environ["TQDM_DISABLE"] = "1"

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from pathlib import Path  # noqa: E402

from faults import damage, kills, lists, models, parameters, pictures, storage, weights  # noqa: E402
from faults.cases import ROOT, finished, home, total  # noqa: E402
from memlib.cache.atomic import replace_file  # noqa: E402
from memlib.chapters.claims import commit  # noqa: E402

RESULT = ROOT / "results" / "faults.json"
ROOMS = (kills, storage, damage, pictures, lists, weights, models, parameters)
KINDS = {name: kind for room in ROOMS for name, kind in room.KINDS.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run what is named, or everything, and write the rows as they come. The exit code is 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m faults")
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--sample", action="store_true", help="a few cases of each, and no page")
    parser.add_argument("--cases", type=Path, help="the folder of finished cases; default: runs/faults/CODE")
    parser.add_argument("--out", type=Path, default=RESULT, help="default: results/faults.json")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.kinds) - set(KINDS):
        parser.error(f"no kind is called {', '.join(sorted(unknown))}: {', '.join(KINDS)}")
    kept = json.loads(chosen.out.read_text(encoding="utf8"))["kinds"] if chosen.out.exists() else []
    rows, bad = {row["kind"]: row for row in kept if row["kind"] in KINDS}, []
    where = chosen.cases or home()
    for name in chosen.kinds or KINDS:
        kind, begun = KINDS[name], time.monotonic()
        found = total(list(finished(where, name, kind, kind.sample if chosen.sample else kind.cases)))
        counted = {"kind": name, "cases": sum(found.counts.values()), **found.counts, "kills": found.kills}
        rows[name] = counted | {"seconds": round(time.monotonic() - begun), "commit": commit()}
        bad += [f"{name}: {why}" for why in found.why]
        told = ", ".join(f"{count} {outcome}" for outcome, count in found.counts.items() if count)
        print(f"{name:34} {told}, {found.kills} kills, {rows[name]['seconds']} s", flush=True)
        for why in found.why[:5]:
            print(f"    {why}", flush=True)
        page = {"date": datetime.now(UTC).date().isoformat(), "kinds": [rows[one] for one in KINDS if one in rows]}
        text = json.dumps(page, indent=1) + "\n"
        replace_file(chosen.out, lambda beside, text=text: beside.write_text(text, encoding="utf8"))
    print(f"{len(bad)} went wrong" if bad else "nothing lost, nothing wrong")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
