"""`memlib study`: run the experiment of a paper without its notebook, in full or by groups of claims."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError

from memlib.cache import store
from memlib.cache.atomic import replace_file, writing
from memlib.chapters import claims, parameters
from memlib.cost import Work
from memlib.errors import Refused
from memlib.papers import groups_of, studies
from memlib.run import begin
from memlib.settings import SCALES, changed


def listing() -> str:
    """A table of the studies: chapter, claims, and the seconds of the kept run at each scale."""
    rows: list[tuple[str, ...]] = [("study", "chapter", "claims", *SCALES)]
    for name, study in studies().items():
        ids = " ".join(claim for group in study.GROUPS.values() for claim in group)
        runs = [claims.kept(study.CHAPTER, scale) for scale in SCALES]
        costs = [f"{run['provenance']['seconds']:.0f} s" if run else "not run" for run in runs]
        rows.append((name, study.CHAPTER, ids, *costs))
    return claims.aligned(rows)


def run_study(
    study: ModuleType,
    scale: str,
    *,
    ids: Sequence[str] = (),
    seed: int = 0,
    device: str | None = None,
    processes: int | None = None,
    values: dict[str, Any] | None = None,
    out: Path | None = None,
) -> list[dict[str, Any]]:
    """Run the groups of a study that measure the claims `ids`, and write the results.

    A run that was stopped goes on from its cache.

    Arguments:
        study: a module such as `memlib.papers.side.study`.
        scale: fast, book, gpu or paper.
        ids: claims, such as "S1"; all if empty.
        seed: the key of all random numbers.
        device: as in `memlib.run.begin`.
        processes: as in `memlib.run.begin`.
        values: settings that differ from those of the scale.
        out: the folder for `<chapter>.json` (claims, tables, provenance) and `<chapter>.safetensors` (the results).
            Groups of earlier runs with these settings stay in both, so that runs on several machines add up. None is
            `results/<scale>`, or `runs/<scale>` if a seed or settings are given, since these are not the scale's.

    Returns:
        The records of the claims.

    Raises:
        Refused: as `chapters.begin`, and for an unknown claim.
    """
    settings = changed(at(study, scale), values or {})
    groups = groups_of(study, list(ids))
    run = begin(study.CHAPTER, scale, seed, device=device, processes=processes)
    _set_dtype(settings)
    results = study.run(settings, run, groups)
    home = (claims.root() or Path.cwd()) / ("runs" if values or seed else "results") / scale
    where = claims.provenance(run.device, {"seed": seed} | parameters.as_dict(settings))
    where["seconds"] = round(time.perf_counter() - run.started, 1)
    path = (out or home) / study.CHAPTER
    lock = FileLock(_lock_of(path))  # another run may add its groups to the same record
    with writing(store.folder()):
        lock.acquire()
    try:
        return _keep(study, results, groups, where, path, scale)
    finally:
        lock.release()


def cost(study: ModuleType, scale: str, values: dict[str, Any], devices: int, rate: float) -> str:
    """A table of the stages of a study: operations of its networks, hours, and gigabytes that they leave.

    Arguments:
        values: settings that differ from those of the scale.
        devices: that share the work.
        rate: operations a second that each sustains.

    Raises:
        Refused: for a study without an estimate, and for no devices or no rate.
    """
    settings = changed(at(study, scale), values)
    if not hasattr(study, "work"):
        raise Refused(f"the study of chapter {study.CHAPTER} has no estimate: `memlib study` lists what its runs took")
    if devices < 1 or not rate > 0:
        raise Refused(f"need a device or more and a rate above 0, not {devices} and {rate:g}")
    stages = study.work(settings)
    every = [*stages, Work("all", sum(one.operations for one in stages), sum(one.disk for one in stages))]
    rows = [
        (one.stage, f"{one.operations:.2g}", f"{one.hours(devices, rate):.2g}", f"{one.disk / 1e9:.2g}")
        for one in every
    ]
    table = claims.aligned([("stage", "operations", "hours", "GB"), *rows])
    left = "data, judges and looks along the way not counted"
    return f"{table}\nfor {devices} x {rate:.2g} operations a second; {left}"


def at(study: ModuleType, scale: str) -> Any:
    """The settings of a study at a scale. Raises Refused if it has none."""
    if scale not in study.SCALES:
        known = " or ".join(map(repr, study.SCALES))
        raise Refused(f"chapter {study.CHAPTER} has no scale {scale!r}: choose {known}")
    return study.SCALES[scale]


def _keep(
    study: ModuleType, results: Any, groups: Sequence[str], where: dict[str, Any], path: Path, scale: str
) -> list[dict[str, Any]]:
    """Add the groups just run to the record at `path`, with their provenance, and return their claims."""
    page, tensors = path.with_suffix(".json"), path.with_suffix(".safetensors")
    before = _before(page)
    # A setting that an earlier run did not know changed nothing in it.
    stated = before["provenance"]["parameters"] if before else {}
    same = bool(stated) and all(where["parameters"].get(name) == value for name, value in stated.items())
    earlier = {name: one for name, one in before.get("groups", {}).items() if name not in groups} if same else {}
    if earlier and tensors.exists():
        try:
            old = store.load(tensors)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise _spoilt(tensors) from error
        fields = [field.name for field in dataclasses.fields(results)]
        missing = {name: getattr(old, name) for name in fields if getattr(results, name) is None}
        results = dataclasses.replace(results, **missing)
    found = [claim.record(scale) for claim in study.verdicts(results)]
    tables = study.tables(results) if hasattr(study, "tables") else {}
    by_group = earlier | {name: {key: where[key] for key in ("commit", "device", "seconds")} for name in groups}
    whole = where | {"seconds": round(sum(one["seconds"] for one in earlier.values()) + where["seconds"], 1)}
    written = {"provenance": whole, "groups": by_group, "claims": found, "tables": tables}
    store.save(tensors, results)
    text = json.dumps(written, indent=1, default=str) + "\n"
    replace_file(page, lambda beside: beside.write_text(text, encoding="utf8"))
    mine = {one for name in groups for one in study.GROUPS[name]}
    return [record for record in found if record["id"] in mine]


def _lock_of(path: Path) -> Path:
    """The file of the lock on a record, in the cache: beside the record it would be kept with the results."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return store.folder() / f"record-{name}.lock"


def _before(page: Path) -> dict[str, Any]:
    """The record that an earlier run left, or an empty one. Raises Refused if it is damaged."""
    if not page.exists():
        return {}
    try:
        before = json.loads(page.read_text(encoding="utf8"))
        parts = before["provenance"]["parameters"], before["groups"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _spoilt(page) from error
    if not all(isinstance(part, dict) for part in parts):
        raise _spoilt(page)
    return before


def _spoilt(path: Path) -> Refused:
    return Refused(f"{path} is damaged: delete it, and start again to have it made from what the cache keeps")


def _set_dtype(settings: Any) -> None:
    import torch

    torch.set_default_dtype(getattr(torch, getattr(settings, "dtype", "float32")))
