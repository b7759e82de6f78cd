"""`memlib doctor`: the devices, data and weights that are here or missing, and the chapters that need them.

It uses no network, writes no file and imports no slow package but torch. A missing asset is not an error.
"""

import importlib.util
import json
import os
import platform
import shutil
import textwrap
from pathlib import Path
from typing import Any

import memlib
from memlib import assets
from memlib.chapters import needs
from memlib.cli import chapters
from memlib.errors import Refused
from memlib.settings import SCALES

_SOON = 256 * 2**20  # bytes up to which a file is hashed without --hash
_WIDTH, _IN = 100, " " * 6


def report(hashes: bool = False) -> dict[str, Any]:
    """The findings as plain values; with `hashes`, also the SHA-256 of large files."""
    devices = _devices()
    rows = [_row(asset, hashes) for asset in assets.ASSETS]
    there = {row["name"] for row in rows if row["state"] == "found"} | (
        {"cuda"} if devices["cuda"] or devices["other"] else set()
    )
    scales = [
        {"chapter": name, "scale": scale, "missing": [x for x in needs.NEEDS.get((name, scale), ()) if x not in there]}
        for name in needs.chapters(_project())
        for scale in SCALES
    ]
    return {
        "version": memlib.__version__,
        "devices": devices,
        "folders": {name: os.environ.get(name) for name in ("MEMLIB_DATA", "MEMLIB_WEIGHTS")},
        "assets": rows,
        "scales": scales,
    }


def as_json(seen: dict[str, Any]) -> str:
    """The report for a program."""
    return json.dumps(seen, indent=1)


def as_text(seen: dict[str, Any]) -> str:
    """The report for a person, at most 100 columns wide except for paths."""
    parts = [_machine(seen)]
    for kind, variable in (("data", "MEMLIB_DATA"), ("weights", "MEMLIB_WEIGHTS")):
        rows = [row for row in seen["assets"] if row["kind"] == kind]
        parts.append(f"{kind}, {_folder(seen, variable)}\n{_overview(rows)}")
    parts.append("chapters and scales (fast and book need nothing more)\n" + _unlocked(seen))
    if notes := [text for row in seen["assets"] if row["state"] != "missing" for text in _seen(row)]:
        parts.append("what is here\n" + "\n".join(notes))
    if absent := [text for row in seen["assets"] if row["state"] != "found" for text in _advice(row)]:
        first = [f"  export {name}=FOLDER" for name, place in seen["folders"].items() if not place]
        parts.append("\n".join(["to have the rest found", *first, *absent]))
    return "\n\n".join(parts)


def _project() -> Path | None:
    """The project's folder, or None where memlib is installed without the book."""
    try:
        return chapters.root()
    except Refused:
        return None


def _devices() -> dict[str, Any]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        memory = None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = [
        {
            "name": torch.cuda.get_device_name(index),
            "memory": torch.cuda.get_device_properties(index).total_memory,
            "bf16": torch.cuda.get_device_capability(index) >= (8, 0),  # in hardware from Ampere on
        }
        for index in range(count)
    ]
    other = torch.accelerator.current_accelerator(check_available=True) if not cuda else None
    library = importlib.util.find_spec("datasets")  # without an origin it is a mere folder of that name
    return {
        "python": platform.python_version(), "torch": torch.__version__, "cores": cores, "memory": memory,
        "cuda": cuda, "other": other.type if other else None, "npm": shutil.which("npm"),
        "datasets": bool(library and library.origin),
    }  # fmt: skip


def _row(asset: assets.Asset, hashes: bool) -> dict[str, Any]:
    """One asset: its facts, whether it is here, and its files compared with the published ones."""
    found = assets.look(asset)
    files = []
    for path, file in assets.here(asset, found.path) if found.path else ():
        size = path.stat().st_size
        computed = assets.sha256(path) if hashes or size <= _SOON else None
        files.append({"path": str(path), "size": size, "sha256": computed, "published": file.sha256})
    published = [assets.FILES[name]._asdict() for name in asset.published]
    wanted = [list(key) for key, names in needs.NEEDS.items() if asset.name in names]
    return {
        "name": asset.name, "kind": asset.kind, "state": found.state, "path": found.path and str(found.path),
        "detail": found.detail, "files": files, "size": asset.size, "licence": asset.licence,
        "origin": asset.origin, "obtain": asset.obtain, "published": published, "unlocks": wanted,
        "model": asset.layouts == assets.DIFFUSERS, "setting": asset.setting,
    }  # fmt: skip


def _machine(seen: dict[str, Any]) -> str:
    devices = seen["devices"]
    memory = f", {devices['memory'] / 2**30:.0f} GiB of memory" if devices["memory"] else ""
    cards = [f"{c['name']}, {c['memory'] / 2**30:.0f} GiB{', bf16' if c['bf16'] else ''}" for c in devices["cuda"]]
    npm = "here: the book opens offline" if devices["npm"] else "missing: the book loads MathJax from a CDN"
    hub = "here" if devices["datasets"] else "missing: pip install datasets"
    return "\n".join([
        f"memlib {seen['version']}, Python {devices['python']}, torch {devices['torch']}",
        f"  processor   {devices['cores']} cores{memory}",
        f"  CUDA        {'; '.join(cards) or 'no GPU that torch can use'}",
        *([f"  accelerator {devices['other']}"] if devices["other"] else []),
        f"  npm         {npm}",
        "  bundled     digits (1,797 images of scikit-learn, BSD-3-Clause) and faces (drawn by a procedure)",
        f"  hub:NAME    {hub}",
    ])  # fmt: skip


def _folder(seen: dict[str, Any], variable: str) -> str:
    place = seen["folders"][variable]
    if not place:
        return f"in {variable}, which is not set"
    return f"in {variable}={place}" + ("" if Path(place).is_dir() else ", which is no folder")


def _overview(rows: list[dict[str, Any]]) -> str:
    table = [("name", "state", "size", "licence", "for")]
    for row in rows:
        names = ", ".join(dict.fromkeys(f"chapter {chapter[:2]}" for chapter, _ in row["unlocks"]))
        alone = f"-p data={row['name']}" if row["kind"] == "data" else "-p model=..." if row["model"] else "by path"
        use = names or alone
        table.append((row["name"], row["state"], _bytes(row["size"]), row["licence"], use))
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    return "\n".join("  " + "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in table)


def _unlocked(seen: dict[str, Any]) -> str:
    lines, part = [], {row["name"] for row in seen["assets"] if row["state"] == "partial"}
    for entry in seen["scales"]:
        if entry["scale"] in ("gpu", "paper"):
            lacks = [f"{name} (partial)" if name in part else name for name in entry["missing"]]
            state = f"lacks {', '.join(lacks)}" if lacks else "ready"
            start = f"  {entry['chapter'] if entry['scale'] == 'gpu' else '':<24}{entry['scale']:<7}"
            lines.append(textwrap.fill(state, _WIDTH, initial_indent=start, subsequent_indent=" " * len(start)))
    return "\n".join(lines)


def _seen(row: dict[str, Any]) -> list[str]:
    """Where an asset is, how to use it, what was found, and its hashes."""
    lines = [f"  {row['name']}  {row['state']}: {row['path']}", *_indented(row["detail"])]
    if row["state"] == "broken":
        return lines
    if row["kind"] == "data":
        lines.append(f"{_IN}-p data={row['name']}" + ("" if row["name"] in ("olivetti", "lfw") else f":{row['path']}"))
    elif row["model"] or row["setting"]:
        lines.append(f"{_IN}-p {row['setting'] or 'model'}={row['path']}")
    for file in row["files"]:
        name = Path(file["path"]).name
        if file["sha256"] is None:
            lines.append(f"{_IN}{name}: SHA-256 not computed, memlib doctor --hash")
        elif file["published"] == file["sha256"]:
            lines.append(f"{_IN}{name}: SHA-256 as published")
        else:
            why = "none on record to compare" if file["published"] is None else "not the one published"
            lines += [f"{_IN}{name}: SHA-256, {why},", f"{_IN}  {file['sha256']}"]
    return lines


def _advice(row: dict[str, Any]) -> list[str]:
    """Where an asset comes from, how to get it, and the sizes and hashes of its files."""
    lines = [f"  {row['name']}  {row['origin']}", *(_IN + line for line in row["obtain"].splitlines())]
    for file in row["published"]:
        size = f" of {file['size']:,} bytes" if file["size"] else ""
        lines += [f"{_IN}{file['name']}{size}, SHA-256", f"{_IN}  {file['sha256']}"]
    return lines if row["published"] else [*lines, f"{_IN}SHA-256 not on record: memlib doctor computes it once here"]


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=_IN, subsequent_indent=_IN, break_on_hyphens=False)


def _bytes(size: int | None) -> str:
    if size is None:
        return "?"
    unit, name = next((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")) if size >= u or u == 1)
    return f"{size / unit:.3g} {name}"
