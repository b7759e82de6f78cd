"""Fingerprints and the store: what was made once is found again, for the same code and inputs and for no others."""

import collections
import importlib
import math
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tiny_notebook as tiny
import torch

from memlib import train
from memlib.cache import _fingerprint as fingerprints
from memlib.cache import shards, store
from memlib.cache._fingerprint import code_fingerprint, fingerprint
from memlib.cache.atomic import place_folder, replace_file
from memlib.errors import Refused


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty cache and current folder."""
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


# Fingerprints.


def test_a_fingerprint_tells_contents_apart_and_nothing_else():
    generator = torch.Generator().manual_seed(1)
    net = torch.nn.Linear(2, 2)
    twin = torch.nn.Linear(2, 2)
    twin.load_state_dict(net.state_dict())
    same = [
        (torch.arange(6).reshape(2, 3).T.contiguous(), torch.arange(6).reshape(2, 3).T),
        (net, twin),
        ({"a": [1, (2.0, None)]}, {"a": [1, (2.0, None)]}),
        ({1, 2, 30}, {30, 2, 1}),
        (generator, torch.Generator().manual_seed(1)),
        (partial(torch.add, alpha=2), partial(torch.add, alpha=2)),
    ]
    for one, other in same:
        assert fingerprint(one) == fingerprint(other)
    different = [
        1, 1.0, True, "1", b"1", None, [1], (1,), {1: 1}, [[1]], [1, 1], ["ab", "c"], ["a", "bc"],
        torch.ones(1), torch.ones(1, 1), torch.ones(1).double(), torch.ones(1).bfloat16(), np.ones(1),
        net, torch.nn.Linear(2, 2), torch.nn.Sequential(net), torch.nn.Dropout(0.1), torch.nn.Dropout(0.2),
        generator, torch.Generator().manual_seed(2), partial(torch.add, alpha=1), partial(torch.add, alpha=2),
        torch.add,
    ]  # fmt: skip
    assert len({fingerprint(thing) for thing in different}) == len(different)
    with pytest.raises(TypeError, match="lock"):
        fingerprint(threading.Lock())


def compiled(source, **variables):
    """The function `make` of a notebook cell."""
    exec(compile(source, "a notebook cell", "exec"), variables)
    return variables["make"]


def test_a_fingerprint_follows_code_closures_and_globals():
    base = compiled("def make(n=2):\n    return inner(n)\ndef inner(n):\n    return n * scale", scale=3)
    commented = compiled("def make(n=2):\n\n    return inner(n)  # why\ndef inner(n):\n    return n * scale", scale=3)
    assert fingerprint(base) == fingerprint(commented)
    changed = [
        compiled("def make(n=3):\n    return inner(n)\ndef inner(n):\n    return n * scale", scale=3),
        compiled("def make(n=2):\n    return inner(n)\ndef inner(n):\n    return n + scale", scale=3),
        compiled("def make(n=2):\n    return inner(n)\ndef inner(n):\n    return n * scale", scale=4),
        compiled("def make(n=2):\n    return [inner(k) for k in (n,)]\ndef inner(n):\n    return n * scale", scale=3),
    ]
    assert len({fingerprint(make) for make in [base, *changed]}) == 5

    def closing(value):
        return lambda: value

    assert fingerprint(closing(torch.ones(2))) == fingerprint(closing(torch.ones(2)))
    assert fingerprint(closing(torch.ones(2))) != fingerprint(closing(torch.zeros(2)))
    recursive = compiled("def make(n):\n    return n and make(n - 1)")
    assert fingerprint(recursive) == fingerprint(recursive)


def test_a_fingerprint_is_the_same_in_another_process(tmp_path):
    code = (
        "from memlib.cache._fingerprint import *; print(fingerprint({'a', 'b', 'c'}, lambda x: x in {'u', 'v', 'w'}))"
    )
    seen = set()
    for seed in ("1", "2", "3"):  # strings hash differently, so sets are ordered differently
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(tiny.ROOT)}
        seen.add(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout)
    assert len(seen) == 1


# Artefacts.


class Pair(NamedTuple):
    first: torch.Tensor
    second: int


@dataclass(frozen=True)
class Kept:
    points: torch.Tensor
    size: int = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "size", len(self.points))


def counted(value):
    """A function that returns `value`, and its calls, in a thing without content to hash: a list would be an input."""
    calls = collections.deque()

    class Make:
        def __call__(self, *inputs):
            calls.append(inputs)
            return value

    return Make(), calls


def test_a_tree_comes_back_as_it_went():
    shared = torch.arange(6.0).reshape(2, 3)
    tree = {
        "tensors": [
            shared,
            shared.T,
            shared[0],
            torch.tensor(3),
            torch.empty(0, 2),
            torch.ones(2, dtype=torch.bfloat16),
        ],
        "numbers": (1, 2.5, True, None, math.inf, -0.0, 1e-300),
        1: Pair(torch.ones(1), 7),
        (0, "a"): [b"", b"\x00png", "λ"],
        "kept": Kept(torch.zeros(3)),
        "array": np.arange(4, dtype=np.int16)[::-1],
        "state": torch.nn.Linear(2, 1).state_dict(),
    }
    back = store.cached("tree", counted(tree)[0])
    assert list(back) == list(tree)
    for one, other in zip(back["tensors"], tree["tensors"], strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    assert back["numbers"] == tree["numbers"] and list(map(type, back["numbers"])) == list(map(type, tree["numbers"]))
    assert math.copysign(1, back["numbers"][5]) == -1
    assert type(back[1]) is Pair and torch.equal(back[1].first, torch.ones(1)) and back[1].second == 7
    assert back[0, "a"] == tree[0, "a"]
    assert type(back["kept"]) is Kept and back["kept"].size == 3
    assert back["array"].dtype == np.int16 and back["array"].tolist() == [3, 2, 1, 0]
    assert type(back["state"]) is collections.OrderedDict
    assert store.cached("nothing", counted(None)[0]) is None
    with pytest.raises(TypeError, match="Generator cannot be stored"):
        store.cached("generator", counted(torch.Generator())[0])


def test_a_result_is_made_once_for_its_inputs(monkeypatch, capfd):
    make, calls = counted({"a": torch.ones(2)})
    for x in (torch.ones(2), torch.ones(2), torch.zeros(2)):
        store.cached("net", make, x)
    assert len(calls) == 2
    store.cached("other name", make, torch.ones(2))
    store.cached("net", make, torch.ones(2), seed=1)
    assert len(calls) == 4
    assert capfd.readouterr() == ("", "")


def test_a_change_of_memlib_makes_anew(monkeypatch):
    make, calls = counted(1)
    store.cached("net", make)
    monkeypatch.setattr(store, "code_fingerprint", lambda _: "another source")
    store.cached("net", make)
    assert len(calls) == 2


def test_a_hit_draws_like_a_miss():
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        result = store.cached("draw", lambda: torch.randn(3), seed=1)
        drawn.append(torch.cat([result, torch.randn(3)]))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0][:3], store.cached("draw", lambda: torch.randn(3), seed=2))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_artefact_is_made_again(damage, tmp_path):
    make, calls = counted({"a": torch.arange(1000.0)})
    store.cached("net", make)
    (path,) = (tmp_path / "cache").glob("*.safetensors")
    whole = path.read_bytes()
    spoilt = {
        "cut": whole[:-100],
        "empty": b"",
        "text": b"not a tensor",
        "flipped": whole[:-1] + bytes([whole[-1] ^ 1]),
    }
    path.write_bytes(spoilt[damage])
    assert torch.equal(store.cached("net", make)["a"], torch.arange(1000.0))
    assert len(calls) == 2
    assert path.read_bytes() == whole


def test_an_interrupted_write_leaves_the_old_artefact(monkeypatch, tmp_path):
    path = tmp_path / "kept.safetensors"
    store.save(path, torch.ones(2))

    def killed(tensors, name, metadata):
        Path(name).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        store.save(path, torch.zeros(2))
    assert torch.equal(store.load(path), torch.ones(2))
    assert [found.name for found in tmp_path.glob("kept*")] == ["kept.safetensors"]


TWO = """
import os, time, torch
from memlib.cache import store
def make():
    with open("made", "a") as made:
        made.write("x")
    time.sleep(1)
    return torch.randn(4)
print(store.cached("net", make).tolist())
"""


def test_two_runs_at_once_make_it_once(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(tiny.ROOT)}
    command = [sys.executable, "-c", TWO]
    both = [subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0] for process in both]
    assert printed[0] == printed[1] != b""
    assert (tmp_path / "made").read_text() == "x"


def test_a_cache_that_cannot_be_written_is_a_sentence(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(Refused, match="set MEMLIB_CACHE"):
        store.folder()


# Code.


def test_the_code_behind_a_module_is_what_it_imports(tmp_path, monkeypatch):
    """a imports b inside a function, b imports the package c; d is nobody's."""
    for name, text in {
        "a.py": "def f():\n    from memlib.b import g",
        "b.py": "import memlib.c.inner",
        "c/__init__.py": "",
        "c/inner.py": "x = 1",
        "d.py": "",
    }.items():
        path = tmp_path / "memlib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(fingerprints, "_MEMLIB", tmp_path / "memlib")

    def seen(module):
        code_fingerprint.cache_clear()
        return code_fingerprint(module)

    before, everything = seen("memlib.a"), seen("__main__")
    (tmp_path / "memlib" / "d.py").write_text("y = 2")
    assert seen("memlib.a") == before and seen("__main__") != everything
    (tmp_path / "memlib" / "c" / "inner.py").write_text("x = 2")
    assert seen("memlib.a") != before and seen("memlib.d") != seen("memlib.c.inner")
    code_fingerprint.cache_clear()


# Networks and files.


def halve(net, by):
    """A training that leaves its marks."""
    with torch.no_grad():
        net.weight.mul_(by)


def test_a_network_is_built_and_trained_once(tmp_path):
    build = partial(torch.nn.Linear, 3, 2)
    made = tmp_path / "made"  # a list in the closure would count as an input

    def fit(net, by):
        with open("made", "a") as file:
            file.write("x")
        halve(net, by)

    one = store.trained(build, fit, 0.5, seed=4)
    torch.manual_seed(4)
    expected = torch.nn.Linear(3, 2)
    torch.testing.assert_close(one.weight, 0.5 * expected.weight, rtol=0, atol=0)
    assert not one.training and not any(p.requires_grad for p in one.parameters())
    torch.manual_seed(11)
    again = store.trained(build, fit, 0.5, seed=4)
    after = torch.randn(2)
    torch.manual_seed(11)
    assert torch.equal(after, torch.randn(2))  # the generator outside is left as it was
    assert torch.equal(one.weight, again.weight) and made.read_text() == "x"
    store.trained(build, fit, 0.25, seed=4)
    assert not torch.equal(store.trained(build, fit, 0.5, seed=5).weight, one.weight) and made.read_text() == "xxx"


def test_the_network_that_training_returns_is_kept():
    kept = store.trained(lambda: torch.nn.Linear(1, 1), lambda net: torch.nn.Linear(1, 1).requires_grad_(False), seed=0)
    torch.manual_seed(0)
    torch.nn.Linear(1, 1)
    assert torch.equal(kept.weight, torch.nn.Linear(1, 1).weight)


def test_a_file_is_the_old_one_or_the_new_one(tmp_path):
    path = tmp_path / "deep" / "kept.txt"
    replace_file(path, lambda beside: beside.write_text("old"))

    def half(beside):
        beside.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(path, half)
    assert path.read_text() == "old" and [found.name for found in path.parent.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize("kind", ["artefact", "checkpoint", "shards", "file", "folder", "model folder"])
def test_everything_is_flushed_before_it_is_renamed(kind, tmp_path, monkeypatch):
    """After a power cut a file that has its name has its bytes too."""
    flushed, order = {}, []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle):
        flushed[os.fstat(handle).st_ino] = os.fstat(handle).st_size
        fsync(handle)

    def noted_replace(old, new, **options):
        files = [Path(old)] if Path(old).is_file() else [path for path in Path(old).rglob("*") if path.is_file()]
        order.append(str(new))
        assert files and all(flushed[path.stat().st_ino] == path.stat().st_size > 0 for path in files)
        replace(old, new, **options)

    def write_folder():
        (tmp_path / "filled" / "deep").mkdir(parents=True)
        (tmp_path / "filled" / "deep" / "a").write_text("a")
        place_folder(tmp_path / "filled", tmp_path / "placed")

    def write_model():
        from memlib import adapters, nets

        unet = nets.UNet(8, 1, (8, 8), layers=1).unet
        adapters.to_diffusers(adapters.from_discrete(unet, torch.linspace(0.9, 0.1, 5), "eps"), tmp_path / "model")

    def loss(net, generator):
        return net(torch.randn(4, 2, generator=generator)).square().mean()

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    {
        "artefact": lambda: store.save(tmp_path / "a.safetensors", torch.ones(2)),
        "checkpoint": lambda: list(train.fit(torch.nn.Linear(2, 1), loss, 2, checkpoint=tmp_path)),
        "shards": lambda: shards.stream(lambda seeds: torch.ones(len(seeds), 2), 4, tmp_path / "s", key="k", batch=2),
        "file": lambda: replace_file(tmp_path / "a.txt", lambda beside: beside.write_text("a")),
        "folder": write_folder,
        "model folder": write_model,
    }[kind]()
    assert order


# Classes named in a file.


def test_a_file_imports_no_module_of_its_choice(tmp_path, monkeypatch):
    """A class of a module that is not imported, or that is no tuple or dataclass, is refused and nothing is run."""
    (tmp_path / "planted.py").write_text(
        "import pathlib\nfrom typing import NamedTuple\npathlib.Path('ran').touch()\n"
        "class Point(NamedTuple):\n    x: int\n",
        encoding="utf8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("planted:Point", "memlib.cli.__main__:x", "memlib.no_such_module:x", "memlib.run:os.path", "os:path"):
        with pytest.raises(ValueError, match=name.split(":")[0]):
            store._class(name)
    assert not Path("ran").exists() and "planted" not in sys.modules
    planted = importlib.import_module("planted")

    assert store._class("planted:Point") is planted.Point


def test_a_damaged_file_that_is_read_by_hand_is_refused(tmp_path):
    """By its path as a text, too."""
    store.save(str(tmp_path / "a.safetensors"), torch.arange(3.0))
    assert torch.equal(store.load(str(tmp_path / "a.safetensors")), torch.arange(3.0))
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(Refused, match="a.safetensors is damaged: delete it"):
        store.load(tmp_path / "a.safetensors")


def test_a_class_of_memlib_is_imported_for_a_file_that_names_it(tmp_path):
    """In a process that has imported nothing but the store."""
    from memlib.likelihood import LogLikelihood

    store.save(tmp_path / "kept.safetensors", LogLikelihood(torch.ones(2), torch.zeros(2)))
    read = "from pathlib import Path; from memlib.cache import store; print(store.load(Path('kept.safetensors')))"
    done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith("LogLikelihood(value=tensor([1., 1.])")


def test_a_function_whose_shapes_are_checked_counts_as_itself():
    """The tests wrap the core's functions; a cache key must not depend on that, nor fail at it."""
    from memlib import losses, noise

    assert hasattr(losses.obtuse, "__wrapped__")  # else this says nothing
    assert fingerprint(losses.obtuse) != fingerprint(losses.orthogonal)
    assert fingerprint(partial(noise.lognormal, mean=1.0)) == fingerprint(partial(noise.lognormal, mean=1.0))


# Edited classes, comments, versions.


def defined(source, name="Thing", **variables):
    """The class `name` of a notebook cell."""
    exec(compile(source, "a notebook cell", "exec"), variables)
    return variables[name]


NETWORK = """
import torch
class Base(torch.nn.Module):
    def scaled(self, x):
        return {factor} * x
class Thing(Base):
    shift = {shift}
    def forward(self, x):
        return self.scaled(x) + {added}
    @staticmethod
    def still(x):
        return x - {static}
    @property
    def told(self):
        return {told}
"""


@pytest.mark.parametrize("instance", [True, False])
def test_an_edited_forward_is_seen(instance):
    """A method, a base class's, a class attribute, a static method, a property: of the network and of its class."""
    usual = {"factor": 2, "shift": 0, "added": 1, "static": 1, "told": 1}

    def hashed(**changed):
        kind = defined(NETWORK.format(**usual | changed))
        return fingerprint(kind() if instance else kind)

    assert hashed() == hashed()
    assert len({hashed(), *(hashed(**{name: 7}) for name in usual)}) == 6


def test_an_edited_class_of_a_notebook_is_seen_wherever_it_stands():
    """As an instance with and without attributes, a dataclass, a named tuple, a global of a function, in a closure."""
    plain = "class Thing:\n    def __call__(self, x):\n        return x + {}"
    data = (
        "import dataclasses\n@dataclasses.dataclass\nclass Thing:\n    a: int = 1\n    def f(self):\n        return {}"
    )
    named = (
        "from typing import NamedTuple\nclass Thing(NamedTuple):\n    a: int = 1\n    def f(self):\n        return {}"
    )

    def reading(thing):
        return compiled("def make():\n    return thing", thing=thing)

    for source in (plain, data, named):
        for use in (
            lambda kind: kind(),
            lambda kind: [kind()],
            reading,
            lambda kind: reading(kind()),
            lambda kind: lambda: kind,
        ):
            same, other = (fingerprint(use(defined(source.format(n)))) for n in (1, 2))
            assert same != other and same == fingerprint(use(defined(source.format(1))))


def test_a_class_that_names_itself_or_holds_a_lock_has_a_fingerprint():
    looped = "class Thing:\n    def copy(self):\n        return Thing()\n    def lock(self):\n        return lock"
    one, other = (defined(looped, lock=threading.Lock()) for _ in range(2))
    assert fingerprint(one()) == fingerprint(other())
    assert fingerprint(one(), one()) != fingerprint(one())


def test_an_edited_module_of_ones_own_is_seen_and_its_comments_are_not(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def hashed(text):
        (tmp_path / "helping.py").write_text(text, encoding="utf8")
        sys.modules.pop("helping", None)
        importlib.invalidate_caches()
        return fingerprint(compiled("def make():\n    return helping.f()", helping=importlib.import_module("helping")))

    base = hashed("def f():\n    return 1\n")
    assert hashed('"""Helps."""\n\n\ndef f():\n    """One."""\n    return 1  # why\n') == base
    assert hashed("def f():\n    return 2\n") != base


def test_a_comment_in_memlib_discards_nothing_and_a_version_does(tmp_path, monkeypatch):
    """Versions of the libraries that the closure imports, inside functions too, and of no others."""
    package = tmp_path / "memlib"
    package.mkdir()
    monkeypatch.setattr(fingerprints, "_MEMLIB", package)
    installed = {"sklearn": "1", "diffusers": "1", "scipy": "1"}
    monkeypatch.setattr(fingerprints, "_version", lambda top: installed.get(top))

    def seen(text):
        (package / "a.py").write_text(text, encoding="utf8")
        code_fingerprint.cache_clear()
        return code_fingerprint("memlib.a")

    plain = "import sklearn.svm\ndef f():\n    from diffusers import UNet2DModel\n    return 1\n"
    base = seen(plain)
    assert seen('"""A."""\n' + plain.replace("def f():", 'def f():  # one\n    """f."""\n')) == base
    assert seen(plain.replace("return 1", "return 2")) != base
    for library, counts in (("sklearn", True), ("diffusers", True), ("scipy", False)):
        installed[library] = "2"
        assert (seen(plain) != base) == counts
        installed[library] = "1"
    code_fingerprint.cache_clear()


def test_the_version_of_a_library_counts_where_its_things_are_inputs(monkeypatch):
    from sklearn.linear_model import LogisticRegression

    things = [LogisticRegression, LogisticRegression(C=2.0), torch.nn.Linear(2, 2), np.linalg.norm]
    things[2].load_state_dict({"weight": torch.ones(2, 2), "bias": torch.ones(2)})
    before = [fingerprint(thing) for thing in things]
    assert before == [fingerprint(thing) for thing in things]
    monkeypatch.setattr(fingerprints, "_version", lambda top: "another")
    assert all(old != fingerprint(thing) for old, thing in zip(before, things, strict=True))
    assert fingerprints.metadata.version("scikit-learn")  # the name that `sklearn` is installed under


def test_libraries_are_found_by_what_they_install():
    from importlib import metadata

    assert fingerprints._version("sklearn") == metadata.version("scikit-learn")
    assert fingerprints._version("PIL") == metadata.version("pillow")
    assert fingerprints._version("no_such_package") is None
