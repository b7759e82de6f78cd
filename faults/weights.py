"""Files of weights and results: wrong shapes, NaN, missing entries, damaged bytes, and pickles that run code."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from faults import fuzz, spoiling
from memlib import data, nets, train
from memlib.cache import Shards, checkpoints, store, stream
from memlib.cache.weights import load_weights
from memlib.chapters import parameters
from memlib.features import torchscript
from memlib.papers.i2i import mage

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


class Edit(NamedTuple):
    """What happens to the entries of a file of tensors: how, to which, and with what."""

    how: str
    which: int
    shape: list[int]
    dtype: torch.dtype
    fill: float


EDITS = st.builds(
    Edit,
    st.sampled_from(["drop", "reshape", "fill", "retype", "rename", "add"]),
    st.integers(0, 99),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(DTYPES),
    st.sampled_from([float("nan"), float("inf"), 1e30, -1.0]),
)


def edited(state: dict[str, torch.Tensor], edits: list[Edit]) -> dict[str, torch.Tensor]:
    """The state after all edits."""
    state = dict(state)
    for how, which, shape, dtype, fill in edits:
        names = sorted(state)
        if how == "add" or not names:
            state["further.weight"] = torch.zeros(shape, dtype=dtype)
            continue
        name = names[which % len(names)]
        if how == "drop":
            del state[name]
        elif how == "reshape":
            state[name] = torch.zeros(shape, dtype=state[name].dtype)
        elif how == "rename":
            state[f"{name}_old"] = state.pop(name)
        elif how == "retype":
            state[name] = state[name].to(dtype)
        elif state[name].is_floating_point():
            state[name] = torch.full_like(state[name], fill)
    return state


def network() -> nets.ResidualMLP:
    """The one that the files are for."""
    torch.manual_seed(0)
    return nets.ResidualMLP((3,), width=8)


class File(NamedTuple):
    """How the tensors, the header and the bytes of a file differ from a right one."""

    edits: list[Edit]
    header: dict[str, Any] | None
    changes: list


def inputs() -> st.SearchStrategy[File]:
    """A file with at least one fault, as a rule."""
    headers = st.one_of(st.none(), st.dictionaries(st.sampled_from(HEADERS), JSON, max_size=2))
    changes = st.one_of(st.just([]), st.lists(spoiling.CHANGES, max_size=2))
    return st.builds(File, st.lists(EDITS, max_size=2), headers, changes)


HEADERS = ("memlib", "step", "settings", "tree", "checksum", "name", "n", "batch", "key", "first", "dtype")


def _put(path: Path, state: dict[str, torch.Tensor], record: Any, given: File, key: str = "memlib") -> None:
    """A file of tensors with a record in its header, with everything that `given` changes."""
    if given.header is not None and isinstance(record, dict):
        record = given.header["memlib"] if "memlib" in given.header else record | given.header
    text = record if isinstance(record, str) else json.dumps(record)
    content = save(edited(state, given.edits), {key: text})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(spoiling.changed(content, given.changes))


def read_result(folder: Path, given: File) -> None:
    """A result of the cache: whatever is read is what was written."""
    right = {"a": torch.arange(6.0).view(2, 3), "b": (1, "two", [None, 3.5]), "c": numpy.arange(4), "d": b"bytes"}
    path = folder / "right.safetensors"
    store.save(path, right)
    with checkpoints.safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["memlib"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    _put(path, state, record, given)
    found = store.load(path)
    assert torch.equal(found["a"], right["a"]) and found["b"] == right["b"] and found["d"] == right["d"]


def read_checkpoint(folder: Path, given: File) -> None:
    """A checkpoint of a training, which then goes on."""
    net, path = network(), folder / "training.safetensors"

    def loss(net: torch.nn.Module, generator: torch.Generator) -> torch.Tensor:
        return net(torch.randn(4, 3, generator=generator), torch.ones(4)).square().mean()

    for _ in train.fit(net, loss, 2, checkpoint=path, schedule="constant"):
        pass
    with checkpoints.safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["memlib"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    _put(path, state, record, given)
    again = network()
    steps = [step.index for step in train.fit(again, loss, 3, checkpoint=path, schedule="constant")]
    assert steps == [2] and all(p.isfinite().all() for p in again.parameters())


def read_shards(folder: Path, given: File) -> None:
    """A folder of samples: a damaged shard, or else a damaged manifest."""
    stream(lambda seeds: seeds[:, None].float(), 7, folder, key="fuzz", batch=4)
    path = folder / "000001.safetensors"
    with checkpoints.safe_open(path, "pt") as file:
        checksum = file.metadata()["checksum"]
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    if given.edits:
        _put(path, state, checksum, given, "checksum")
    else:
        manifest = folder / "manifest.json"
        text = json.dumps(json.loads(manifest.read_text()) | (given.header or {})).encode()
        manifest.write_bytes(spoiling.changed(text, given.changes))
    shards = Shards(folder)
    assert shards[:4]["images"].flatten().tolist()[: min(4, len(shards))] == [0, 1, 2, 3][: min(4, len(shards))]
    for shard in shards:
        assert torch.equal(shard["images"][:, 0], shard["seeds"].float())
    stream(lambda seeds: seeds[:, None].float(), 7, folder, key="fuzz", batch=4)


def read_network(folder: Path, given: File) -> None:
    """Weights by name, as safetensors: all of them, finite, or none."""
    path, net = folder / "mage.safetensors", network()
    _put(path, dict(net.state_dict()), "{}", given)
    load_weights(net, mage.read_weights(path), str(path))
    assert all(t.isfinite().all() for t in net.state_dict().values())


# Pickles and other files that could run code.


class Bomb:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


class Program(NamedTuple):
    """What would run, in which kind of file, beside what, and in which protocol of pickle."""

    call: str
    kind: str
    inside: str
    protocol: int


CALLS: dict[str, Callable[[Path], tuple]] = {
    "os.system": lambda marker: (os.system, f"touch {marker}"),
    "exec": lambda marker: (exec, f"open({str(marker)!r}, 'w').close()"),
    "eval": lambda marker: (eval, f"open({str(marker)!r}, 'w')"),
    "open": lambda marker: (open, str(marker), "w"),
    "os.mkdir": lambda marker: (os.mkdir, str(marker)),
    "torch.save": lambda marker: (torch.save, 1, str(marker)),
    "numpy.save": lambda marker: (numpy.save, str(marker), 1),
    "os.replace": lambda marker: (os.replace, f"{marker}.before", str(marker)),
}
FILES = ("mage pickle", "mage zip", "cifar10", "mnist npz", "torchscript", "cache", "yaml", "literal", "bare")


def programs() -> st.SearchStrategy[Program]:
    """A file that would run something."""
    inside = st.sampled_from(["alone", "model", "entry", "list"])
    return st.builds(Program, st.sampled_from(sorted(CALLS)), st.sampled_from(FILES), inside, st.integers(0, 5))


def read_program(folder: Path, given: Program) -> None:
    """By the reader of its kind, which must refuse it and run nothing."""
    marker = folder / "it-ran"
    (folder / "it-ran.before").write_text("moved by os.replace")
    function, *arguments = CALLS[given.call](marker)
    bomb = Bomb(function, *arguments)
    weights = {"weight": torch.zeros(2)}
    content = {
        "alone": bomb,
        "model": {"model": weights, "args": bomb},
        "entry": weights | {"bias": bomb},
        "list": [weights, bomb],
    }
    read = _armed(folder, given, content[given.inside], function, arguments)
    assert not marker.exists(), "it ran while it was written"
    try:
        read()
    finally:
        assert not marker.exists() and not list(folder.glob("it-ran.npy")), f"the code in the file ran: {given}"
    raise AssertionError(f"a file that would run code was read: {given}")


def _armed(folder: Path, given: Program, held: Any, function: Callable, arguments: list) -> Callable[[], Any]:
    """Write the file; what reads it."""
    text = pickle.dumps(held, protocol=given.protocol)
    home = "nt" if os.name == "nt" else function.__module__
    called = f"{home}.{function.__name__}".replace("posix.", "os.")
    if given.kind in ("mage pickle", "bare"):
        path = folder / ("mage.pth" if given.kind == "mage pickle" else "mage.safetensors")
        path.write_bytes(text)
        return lambda: mage.read_weights(path)
    if given.kind == "mage zip":
        torch.save(held, folder / "mage.pth", pickle_protocol=max(2, given.protocol))
        return lambda: mage.read_weights(folder / "mage.pth")
    if given.kind == "cifar10":
        for number in range(1, 6):
            (folder / f"data_batch_{number}").write_bytes(text)
        return lambda: data.load(f"cifar10:{folder}")
    if given.kind == "mnist npz":
        array = io.BytesIO()
        numpy.lib.format.write_array(array, numpy.array([held], object), allow_pickle=True)
        with zipfile.ZipFile(folder / "train.npz", "w") as archive:
            archive.writestr("x.npy", array.getvalue())
            archive.writestr("y.npy", array.getvalue())
        return lambda: data.load(f"mnist:{folder}")
    if given.kind == "torchscript":
        (folder / "sscd.pt").write_bytes(text)
        return lambda: torchscript.load_known(folder / "sscd.pt", "0" * 64, "SSCD")
    if given.kind == "cache":
        name = called.replace(".", ":", 1) if "." in called else f"builtins:{called}"
        tree = [{"named": name, "items": arguments}, {"dataclass": name, "fields": {}}][given.protocol % 2]
        record = {"tree": tree, "checksum": store.fingerprint(tree, {})}
        save_file({}, folder / "a.safetensors", {"memlib": json.dumps(record)})
        return lambda: store.load(folder / "a.safetensors")
    told = json.dumps([str(one) for one in arguments])
    if given.kind == "yaml":
        (folder / "s.yaml").write_text(f"!!python/object/apply:{called}\nargs: {told}\n")
        return lambda: parameters.further(str(folder / "s.yaml"))
    source = f"__import__({called.rpartition('.')[0]!r}).{function.__name__}(*{told})"
    return lambda: parameters.typed("steps", parameters.literal(source), int)


KINDS = {
    "safetensors, results of the cache": fuzz.kind(inputs, read_result, 8),
    "safetensors, checkpoints": fuzz.kind(inputs, read_checkpoint, 8),
    "safetensors, shards": fuzz.kind(inputs, read_shards, 8),
    "safetensors, weights of a network": fuzz.kind(inputs, read_network, 8),
    "files that would run code": fuzz.kind(programs, read_program, 8),
}
