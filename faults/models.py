"""Folders of models that somebody else made: broken, of other sizes, or with a pickle where safetensors is meant.

Each begins as a small right one. What a reader returns then has finite weights and answers once.
"""

import functools
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from faults import fuzz, spoiling
from faults.right import MODELS
from faults.weights import EDITS, Bomb, Edit, edited

# No number that counts layers is so large that building a network of them would be the test.
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 40), st.floats(), st.text(max_size=8),
        st.sampled_from(["silu", "DownBlock2D", "UpBlock2D", "UNet2DModel", "epsilon", "1", "../model", "auto"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


class Folder(NamedTuple):
    """Which file of a right folder differs, and how: entries of JSON, tensors, bytes, or what lies there instead."""

    which: int
    how: str
    entries: list[tuple[int, str, Any]]
    edits: list[Edit]
    changes: list
    protocol: int


def folders() -> st.SearchStrategy[Folder]:
    """A folder with one file that is not right, as a rule."""
    entry = st.tuples(st.integers(0, 99), st.sampled_from(["drop", "set", "add", "rename"]), VALUES)
    return st.builds(
        Folder,
        st.integers(0, 99),
        st.sampled_from(["json", "json", "json", "tensors", "tensors", "bytes", *PLACED]),
        st.lists(entry, min_size=1, max_size=3),
        st.lists(EDITS, min_size=1, max_size=2),
        st.lists(spoiling.CHANGES, min_size=1, max_size=2),
        st.integers(0, 5),
    )


PLACED = ("gone", "empty", "a folder", "another file", "a pickle", "a pickle beside")


def spoilt(folder: Path, given: Folder) -> Path:
    """Change one file of a folder; a marker below it, which a pickle would make."""
    marker = folder.parent / "it-ran"
    wanted = {"json": "*.json", "tensors": "*.safetensors", "a pickle": "*.safetensors"}.get(given.how, "*")
    files = [path for path in sorted(folder.rglob(wanted)) if path.is_file()]
    files = files or [path for path in sorted(folder.rglob("*")) if path.is_file()]
    path = files[given.which % len(files)]
    if given.how == "json" and path.suffix == ".json":
        path.write_text(json.dumps(_told(json.loads(path.read_text(encoding="utf8")), given.entries)))
    elif given.how == "tensors":
        save_file({name: one.contiguous() for name, one in edited(load_file(path), given.edits).items()}, path)
    elif given.how in ("bytes", "json"):
        path.write_bytes(spoiling.changed(path.read_bytes(), given.changes))
    elif given.how == "gone":
        path.unlink()
    elif given.how == "empty":
        path.write_bytes(b"")
    elif given.how == "a folder":
        path.unlink()
        path.mkdir()
    elif given.how == "another file":
        other = files[(given.which // 7) % len(files)]
        path.write_bytes(other.read_bytes())
    else:
        bomb = pickle.dumps({"weight": Bomb(os.mkdir, str(marker))}, protocol=given.protocol)
        names = [path] if given.how == "a pickle" else [path.with_suffix(end) for end in (".bin", ".pth", ".ckpt")]
        for name in names:
            name.write_bytes(bomb)
        if given.how == "a pickle beside" and path.suffix == ".safetensors":
            path.unlink()
    return marker


def _told(config: Any, entries: list[tuple[int, str, Any]]) -> Any:
    """A JSON object after changes of its entries, or of those of an object in it."""
    if not isinstance(config, dict):
        return entries[0][2]
    for which, how, value in entries:
        inner = [one for one in config.values() if isinstance(one, dict) and one]
        part = inner[which % len(inner)] if inner and which % 3 == 0 else config
        name = sorted(part)[which % len(part)] if part else "nothing"
        if how == "drop":
            part.pop(name, None)
        elif how == "set":
            part[name] = value
        elif how == "rename":
            part[f"{name}_old"] = part.pop(name, None)
        else:
            part[f"further_{which}"] = value
    return config


def reader(make: Callable[[Path], None], read: Callable[[Path], Callable[[], Any]]) -> fuzz.Read:
    """A reader of what `make` writes. `read(folder)` returns a call of the model, whose tensors must be finite."""

    @functools.cache
    def right() -> tempfile.TemporaryDirectory:
        place = tempfile.TemporaryDirectory(prefix="memlib-model-")
        torch.manual_seed(0)
        make(Path(place.name))
        read(Path(place.name))()  # it is right, or nothing that follows means anything
        return place

    def one(folder: Path, given: Folder) -> None:
        model = folder / "model"
        shutil.copytree(right().name, model)
        marker = spoilt(model, given)
        try:
            call = read(model)
        finally:
            assert not marker.exists(), f"the code in the file ran: {given}"
        assert torch.as_tensor(call()).isfinite().all()

    return one


KINDS = {
    f"models, {name}": fuzz.kind(folders, reader(make, read), cases) for name, (make, read, cases) in MODELS.items()
}
