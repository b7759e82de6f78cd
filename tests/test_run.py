"""A run: repeatable arithmetic, its device, folders named by what they depend on, and independent parts at once."""

import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import tiny_notebook as tiny
import tiny_study
import torch
from filelock import FileLock

from memlib import run as runs
from memlib.cache import store
from memlib.errors import Refused


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty cache and current folder; torch's determinism as it was."""
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_a_gpu_scale_without_a_gpu_says_what_to_do(scale):
    with pytest.raises(Refused, match="needs an accelerator .* choose 'fast' or 'book'"):
        runs.begin("07_tiny", scale)
    assert runs.begin("07_tiny", scale, device="cpu").device.type == "cpu"  # who insists may


def test_a_device_that_torch_lacks_is_a_sentence():
    with pytest.raises(Refused, match="device 'tpu9' cannot be used"):
        runs.begin("07_tiny", device="tpu9")


def test_begin_makes_arithmetic_repeatable():
    runs.begin("07_tiny", seed=3)
    first = torch.randn(4)
    assert torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.get_num_threads() == 1
    assert torch.equal(first, torch.randn(4, generator=torch.Generator().manual_seed(3)))


PRODUCT = """
import hashlib, torch
from memlib import run
run.begin("x")
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


def test_a_folder_is_named_by_its_inputs():
    run = runs.begin("07_tiny")
    folder = run.folder(torch.ones(2), 3)
    old = folder / "net.safetensors"
    old.touch()
    assert run.folder(torch.ones(2), 3) == folder and old.exists()
    assert len({folder, run.folder(torch.ones(2), 4), run.folder(torch.zeros(2), 3)}) == 3


def test_parts_at_once_have_the_bits_of_parts_in_turn(tmp_path, monkeypatch):
    inputs = [(3, 1.0), (5, 2.0), (4, 0.5)]
    seen = []
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tiny.ROOT), str(tiny.ROOT / "tests")]))
    torch.set_default_dtype(torch.float64)
    try:
        for processes in (1, 2):
            monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / f"cache-{processes}"))
            run = runs.begin("07_tiny", seed=7, processes=processes)
            seen.append(run.each("draws", tiny_study.draw, inputs))
            assert len(list((tmp_path / f"cache-{processes}").glob("*.safetensors"))) == 3
    finally:
        torch.set_default_dtype(torch.float32)
    for one, two in zip(*seen, strict=True):
        assert torch.equal(one, two) and one.dtype == torch.float64
    assert [len(one) for one in seen[0]] == [3, 5, 4]


@pytest.mark.parametrize("processes", [1, 2])
def test_what_follows_from_a_call_is_made_when_that_call_has_ended(tmp_path, monkeypatch, processes):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tiny.ROOT), str(tiny.ROOT / "tests")]))
    run, named = runs.begin("07_tiny", seed=7, processes=processes), []

    def kept(name):
        return len(list((tmp_path / "cache").glob(f"07_tiny-{name}-*.safetensors")))

    def then(number):
        assert run._place("first", tiny_study.draw, (number + 2, 1.0)).exists()
        named.append(number)
        return [("next", tiny_study.draw, (number + 2, scale)) for scale in (2.0, 3.0)]

    for _ in range(2):  # the second time all is there
        run.cascade([("first", tiny_study.draw, (number + 2, 1.0)) for number in range(3)], then)
        assert sorted(named) == [0, 1, 2] and (kept("first"), kept("next")) == (3, 6)
        named.clear()


def test_an_error_in_what_follows_is_raised(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tiny.ROOT), str(tiny.ROOT / "tests")]))
    run = runs.begin("07_tiny", processes=2)
    with pytest.raises(RuntimeError, match="negative"):
        run.cascade([("first", tiny_study.draw, (2, 1.0))], lambda _: [("next", tiny_study.draw, (-1, 1.0))])


def test_a_worker_that_is_killed_is_told_in_a_sentence(monkeypatch):
    """As the system does where memory runs out."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tiny.ROOT), str(tiny.ROOT / "tests")]))
    run = runs.begin("07_tiny", processes=2)
    with pytest.raises(Refused, match="a worker process was ended from outside.*start again to go on"):
        run.each("killed", tiny_study.killed, [(3,), (4,)])
    with pytest.raises(Refused, match="a worker process was ended from outside"):
        run.cascade([("first", tiny_study.killed, (3,))], lambda _: [])


def test_processes_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("MEMLIB_PROCESSES", "3")
    assert runs.begin("07_tiny").processes == 3
    assert runs.begin("07_tiny", processes=1).processes == 1


def test_the_environment_names_a_device(monkeypatch):
    monkeypatch.setenv("MEMLIB_DEVICE", "tpu9")
    with pytest.raises(Refused, match="device 'tpu9' cannot be used"):
        runs.begin("07_tiny")
    assert runs.begin("07_tiny", device="cpu").device.type == "cpu"  # an argument wins


def test_a_run_takes_first_what_no_other_run_is_at():
    """Another run holds the first call; the second is made before that is waited for."""
    run = runs.begin("test", processes=1)
    held, free = (store.place("test-part", tiny_study.draw, (n, 1.0), run.seed) for n in (3, 4))
    order, taken = [], threading.Event()

    def another_run():
        with FileLock(f"{held}.lock"):
            taken.set()
            while not free.exists():
                time.sleep(0.01)
            order.append(held.exists())

    other = threading.Thread(target=another_run)
    other.start()
    taken.wait()
    found = run.each("part", tiny_study.draw, [(3, 1.0), (4, 1.0)])
    other.join()
    assert order == [False] and [len(one) for one in found] == [3, 4]


def test_workers_serve_one_round_of_calls_after_another_until_one_fails(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tiny.ROOT), str(tiny.ROOT / "tests")]))
    run = runs.begin("07_tiny", processes=2)

    def workers(name):
        return set(run.each(name, tiny_study.process, [(part,) for part in range(4)]))

    # A fast worker may serve a whole round alone. Three rounds by two workers cannot be three times new ones.
    kept = workers("first") | workers("second") | workers("third")
    assert len(kept) <= 2 and os.getpid() not in kept
    with pytest.raises(RuntimeError, match="negative"):
        run.each("wrong", tiny_study.draw, [(-1, 1.0), (-2, 1.0)])
    assert not workers("fourth") & kept
    monkeypatch.setenv("MEMLIB_CACHE", os.environ["MEMLIB_CACHE"] + "-2")
    assert not workers("first") & kept  # another environment


KILLED = """
import os, signal, tiny_study
from memlib import run as runs
print(*runs.begin("x", processes=2).each("part", tiny_study.process, [(0,), (1,)]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    path = os.pathsep.join([str(tiny.ROOT), str(tiny.ROOT / "tests")])
    program = tmp_path / "killed.py"
    program.write_text(f"if __name__ == '__main__':\n{textwrap.indent(KILLED, '    ')}")
    environment = os.environ | {"PYTHONPATH": path}
    # Workers hold the other end of the pipe: this returns when they have ended.
    ended = subprocess.run([sys.executable, program], env=environment, stdout=subprocess.PIPE, timeout=300)
    assert ended.returncode == -9 and ended.stdout.split()
