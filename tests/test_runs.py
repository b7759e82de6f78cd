"""Chapter plumbing: parameters, store, claims."""

import collections
import json
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

from memlib import chapters
from memlib.cache import store
from memlib.cache.fingerprint import fingerprint
from memlib.errors import Refused


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty cache and current folder; torch's determinism as it was."""
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEMLIB_FRESH", raising=False)
    monkeypatch.chdir(tmp_path)
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def chapter(**changes):
    """The globals of a notebook after its parameters cell, with `changes` as a second assignment would make them."""
    namespace = {}
    exec(tiny.PARAMETERS + "\nlevels: list[float] = [1.0]\nhalf: str = 'report'\nlimit: int | None = None", namespace)
    return namespace | changes


# Parameters.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lambada": 3}, ["lambada"]),
        ({"n_trian": 3}, ["n_trian", "closest: n_train"]),
        ({"seed": "abc"}, ["seed", "'abc'", "int"]),
        ({"seed": True}, ["seed", "True", "int"]),
        ({"seed": 1.0}, ["seed", "1.0", "int"]),
        ({"seed": None}, ["seed", "None", "int"]),
        ({"weight": "2"}, ["weight", "'2'", "float"]),
        ({"weight": False}, ["weight", "False", "float"]),
        ({"weight": math.nan}, ["weight", "nan", "between"]),
        ({"n_train": 101}, ["n_train", "101", "between 2 and 100"]),
        ({"levels": [1, "x"]}, ["levels", "list[float]"]),
        ({"levels": [1, 99]}, ["levels", "99", "between"]),
        ({"half": "raport"}, ["half", "'raport'", "'explore' or 'report'", "closest: report"]),
        ({"limit": "x"}, ["limit", "int | None"]),
        ({"scale": "bok"}, ["scale", "'bok'", "closest: book"]),
        ({"scale": "paper"}, ["'paper'", "'fast' or 'book' or 'gpu'"]),
    ],
)
def test_a_wrong_parameter_is_refused_in_one_sentence(change, words):
    with pytest.raises(Refused) as refused:
        chapters.begin(
            "07_tiny",
            chapter(**change),
            scales={"book": {"n_train": 16}, "gpu": {}},
            ranges={"n_train": (2, 100), "levels": (0, 10), "weight": (0, 50)},
            choices={"half": ("explore", "report")},
        )
    sentence = str(refused.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence


def test_values_are_converted_and_written_back(capsys):
    namespace = chapter(weight=9, levels=[1, 2], limit=4)
    run = chapters.begin("07_tiny", namespace)
    assert (namespace["weight"], namespace["levels"], namespace["limit"]) == (9.0, [1.0, 2.0], 4)
    assert type(namespace["weight"]) is type(namespace["levels"][0]) is float
    assert run.params == {name: namespace[name] for name in run.params} and list(run.params)[:2] == ["scale", "seed"]
    assert capsys.readouterr().out == ""


def test_a_scale_sets_what_was_not_given(capsys):
    namespace = chapter(scale="book", In=["", "n_train: int = 8", "# Parameters\nscale = 'book'\nweight = 2.0"])
    scales = {"book": {"n_train": 16, "weight": 5}}
    run = chapters.begin("07_tiny", namespace, scales=scales)
    assert (run.scale, namespace["n_train"], namespace["weight"]) == ("book", 16, 2.0)
    assert capsys.readouterr().out == "scale book: n_train = 16, weight = 2.0\n"
    without = chapter(scale="book")
    assert chapters.begin("07_tiny", without, scales=scales).params["weight"] == 5.0


def test_only_what_was_injected_can_be_unknown():
    """A reader who re-runs the second cell later has plain globals of their own; papermill's cell alone is judged."""
    later = chapter(In=["x = 3"], x=3, table={"a": 1})
    chapters.begin("07_tiny", later)
    with pytest.raises(Refused, match="lambada"):
        chapters.begin("07_tiny", chapter(In=["", "# Parameters\nlambada = 3\n"], lambada=3))


def test_tables_that_name_no_parameter_are_the_authors_bug():
    for table in ({"ranges": {"nn": (0, 1)}}, {"choices": {"nn": [1]}}, {"scales": {"book": {"nn": 1}}}):
        with pytest.raises(TypeError, match="nn") as wrong:
            chapters.begin("07_tiny", chapter(), **table)
        assert not isinstance(wrong.value, Refused)


def test_annotations_of_other_kinds():
    assert parameters.typed("sizes", [8, 16], tuple[int, ...]) == (8, 16)
    assert parameters.typed("pair", [1, 2], tuple[float, int]) == (1.0, 2)
    assert parameters.typed("x", 1, float | int) == 1 and type(parameters.typed("x", 1, float | int)) is int
    assert parameters.typed("flag", True, bool) is True
    for value, kind in [([1], tuple[int, int]), (1, bool), ({}, list)]:
        with pytest.raises(Refused):
            parameters.typed("x", value, kind)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_a_gpu_scale_without_a_gpu_says_what_to_do(scale):
    with pytest.raises(Refused, match="needs a CUDA GPU .* choose 'fast' or 'book'"):
        chapters.begin("07_tiny", chapter(scale=scale), scales={scale: {}})


def test_begin_makes_arithmetic_repeatable():
    chapters.begin("07_tiny", chapter(seed=3))
    drawn = torch.randn(4)
    assert torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.get_num_threads() == 1
    assert torch.equal(drawn, torch.randn(4, generator=torch.Generator().manual_seed(3)))


PRODUCT = """
import hashlib, torch
from memlib import chapters
runs.begin("x", {"__annotations__": {"seed": int}, "seed": 0})
net = torch.nn.Sequential(torch.nn.Linear(500, 300), torch.nn.SiLU(), torch.nn.Linear(300, 7)).double()
net(torch.randn(400, 500).double()).square().mean().backward()
print(hashlib.sha256(net[0].weight.grad.numpy().tobytes()).hexdigest(), torch.randn(2_000_000).sum().item())
"""


def test_results_do_not_depend_on_omp_num_threads(tmp_path):
    seen = set()
    for threads in ("1", "2", "4"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": str(tiny.ROOT)}
        command = [sys.executable, "-c", PRODUCT]
        seen.add(subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=True).stdout)
    assert len(seen) == 1


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
    code = "from memlib.runs.fingerprint import *; print(fingerprint({'a', 'b', 'c'}, lambda x: x in {'u', 'v', 'w'}))"
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
    """A function that returns `value`, and the list of its calls."""
    calls = []

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
    store.cached("net", make, torch.ones(2), fresh=True)
    assert len(calls) == 5
    monkeypatch.setenv("MEMLIB_FRESH", "1")
    store.cached("net", make, torch.ones(2))
    assert len(calls) == 6
    store.cached("net", make, torch.ones(2), fresh=False)
    assert len(calls) == 6
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


def test_checkpoints_are_kept_for_the_same_parameters(monkeypatch):
    folder = chapters.begin("07_tiny", chapter()).folder
    (folder / "net").touch()
    assert chapters.begin("07_tiny", chapter()).folder == folder and (folder / "net").exists()
    assert chapters.begin("07_tiny", chapter(n_train=9, In=[])).folder != folder
    monkeypatch.setenv("MEMLIB_FRESH", "1")
    assert list(chapters.begin("07_tiny", chapter()).folder.iterdir()) == []


# Claims.


def test_a_claim_is_rounded_printed_and_recorded(capsys, tmp_path):
    run = chapters.begin("07_tiny", chapter())
    run.claim("S1", "trend only", figure=torch.tensor(0.123456), interval=(0.11119, 0.2), n=2000, text="Larger.")
    run.claim("S2", "reproduced", figure={"a": 12345, "b": [1 / 3, 2]})
    assert capsys.readouterr().out.splitlines() == [
        "S1 (fast): trend only; 0.123 [0.111, 0.2], n = 2000. Larger.",
        "S2 (fast): reproduced; a 12300, b 0.333, 2",
    ]
    page = json.loads((tmp_path / "runs" / "07_tiny-fast.json").read_text())
    assert [claim["id"] for claim in page["claims"]] == ["S1", "S2"]
    assert page["claims"][1] == {
        "id": "S2", "scale": "fast", "figure": {"a": 12300, "b": [0.333, 2]},
        "interval": None, "n": None, "verdict": "reproduced",
    }  # fmt: skip
    assert page["provenance"]["parameters"] == run.params
    assert page["provenance"]["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": "proved"},
        {"figure": math.nan},
        {"figure": [1, math.inf]},
        {"interval": (2, 1)},
        {"interval": (1, math.nan)},
        {"interval": (1, 2, 3)},
    ],
)
def test_a_claim_that_says_nothing_is_an_error(wrong):
    with pytest.raises(ValueError, match="claim"):
        claims.record(**({"id": "S1", "scale": "fast", "verdict": "reproduced", "figure": 1.0} | wrong))


def test_claims_are_read_from_a_notebook(tmp_path):
    record = claims.record("S1", "fast", "reproduced", 1.0)
    outputs = [{"output_type": "stream", "text": "x"}, {"output_type": "display_data", "data": {claims.MIME: record}}]
    cells = [{"cell_type": "markdown", "source": ""}, {"cell_type": "code", "outputs": outputs}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    assert chapters.claims_in(tmp_path / "a.ipynb") == [record]
    (tmp_path / "b.ipynb").write_text("[]")
    for name in ("b.ipynb", "absent.ipynb"):
        with pytest.raises(Refused, match=name):
            chapters.claims_in(tmp_path / name)


def test_a_chapter_runs_on_where_nothing_can_be_written(monkeypatch, capsys, tmp_path):
    run = chapters.begin("07_tiny", chapter())
    (tmp_path / "runs").touch()  # a file where the folder would be
    run.claim("S1", "reproduced", figure=1)
    assert capsys.readouterr().out.startswith("S1")


def test_a_kept_run_is_quoted_with_where_it_ran(monkeypatch, tmp_path):
    (tmp_path / "_toc.yml").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")  # found from below, as from a notebook
    assert chapters.quote("07_tiny") == "no run of the scale book is kept: memlib run 07_tiny --scale book"
    where = {"device": "x86_64 CPU", "seconds": 61.4, "commit": "0123456789abcdef"}
    page = {"provenance": where, "claims": [claims.record("S1", "book", "trend only", 0.5, (0.1, 0.9), 7, "words")]}
    (tmp_path / "results" / "book").mkdir(parents=True)
    (tmp_path / "results" / "book" / "07_tiny.json").write_text(json.dumps(page))
    first, second = chapters.quote("07_tiny").splitlines()
    assert first == "kept run: x86_64 CPU, 61 s, commit 0123456789"
    assert second == "S1 (book): trend only; 0.5 [0.1, 0.9], n = 7. words"


def test_a_table_is_printed_kept_and_quoted(monkeypatch, capsys, tmp_path):
    (tmp_path / "_toc.yml").touch()
    monkeypatch.chdir(tmp_path)
    run = chapters.begin("07_tiny", chapter())
    rows = [("arm", "loss"), ("ours", "0.12"), ("another", "1")]
    run.table("What each arm lost", rows)
    run.claim("S1", "reproduced", figure=1)
    shown = "What each arm lost\narm      loss\nours     0.12\nanother  1"
    assert capsys.readouterr().out.startswith(shown + "\n")
    kept = tmp_path / "runs" / "07_tiny-fast.json"
    assert len(json.loads(kept.read_text())["claims"]) == 1
    (tmp_path / "results" / "book").mkdir(parents=True)
    kept.rename(tmp_path / "results" / "book" / "07_tiny.json")
    assert chapters.quote("07_tiny").endswith("\n\n" + shown)
