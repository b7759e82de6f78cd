"""The inner loops of sampling and training never wait for a GPU: CUDA raises an error where one would."""

import contextlib
import functools
import os

import pytest
import torch
from alike import mover
from test_device_core import GRID, HIDDEN, JUDGE, NET, X, loss

from memlib import inpaint, noise, sample, train
from memlib.papers import learning_rate
from memlib.papers.side import attack

pytestmark = pytest.mark.skipif(
    not os.environ.get("MEMLIB_DEVICE", "pretend").startswith("cuda"), reason="only CUDA tells when it is waited for"
)


@contextlib.contextmanager
def no_waiting():
    """An error at each synchronisation, once what was queued before is done."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def twice(call):
    """Once to start what CUDA starts at its first use, and once without waiting."""
    call()
    with no_waiting():
        return call()


@pytest.fixture(autouse=True)
def no_look_at_the_start(monkeypatch):
    """Samplers read the size of their start once, before the first step; here only the loops are asked."""
    monkeypatch.setattr(sample, "_check_start", lambda x, sigma: None)


@pytest.fixture
def net(device):
    return mover(device)(NET)


@pytest.fixture
def x(device):
    return 5 * X.to(device)


def test_the_test_would_notice(device):
    with pytest.raises(RuntimeError), no_waiting():
        torch.ones(1, device=device).item()


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ancestral(net, x, eta):
    twice(lambda: sample.ancestral(net, x, GRID, eta, noise.seeded(range(6))))


def test_heun(net, x):
    twice(lambda: sample.heun(net, x, GRID))


def test_start(device):
    twice(lambda: sample.start(GRID, range(6), (1, 8, 8), device=device))


def test_inpaint_and_reconstruct(net, x):
    twice(lambda: inpaint.inpaint(net, x, HIDDEN, GRID, 2, noise.seeded(range(6))))
    twice(lambda: inpaint.reconstruct(net, x, 0.5, GRID, noise.seeded(range(6))))


@pytest.mark.parametrize("weights", [[0.0, 1.0, 4.0], [2.0], [0.0]])
def test_a_sweep_over_guidance_weights(net, x, device, weights):
    judge, labels = mover(device)(JUDGE), torch.arange(6) % 3
    twice(lambda: attack.sweep(net, judge, x, labels, weights, GRID))


@pytest.mark.parametrize("precision", [None, "fp32"])
def test_training_between_its_looks_at_the_loss(net, x, precision):
    steps = train.fit(net.requires_grad_(True), functools.partial(loss, z=x), 60, precision=precision)
    for _ in range(25):  # up to the first look
        next(steps)
    with no_waiting():
        for _ in range(24):
            next(steps)
    steps.close()


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("dim", [1, 2])
def test_descent_between_its_looks(device, dim, optimiser):
    points = torch.linspace(-1, 1, 4 * dim, device=device).view(4, dim)
    task = learning_rate.problem(points, torch.tensor([0.2, 0.4], device=device))
    net = learning_rate.two_layer(torch.tensor([1, 2]), 6, dim).to(points)

    def watched(batches):
        for k, batch in enumerate(batches, 1):
            torch.cuda.set_sync_debug_mode("error" if 2 < k < 64 else "default")  # the looks are at 64 and 128
            yield batch
        torch.cuda.set_sync_debug_mode("default")

    batches = learning_rate.minibatches(task, torch.tensor([0, 1]), 8, 100)
    rates = torch.tensor([0.01, 0.02], device=device)
    try:
        list(learning_rate.descend(net, task, rates, watched(batches), bound=5.0, optimiser=optimiser))
    finally:
        torch.cuda.set_sync_debug_mode("default")
