"""Evaluation and training mode: every room that runs a network, and what `fit` leaves behind."""

import copy
import functools
import threading

import pytest
import torch
from torch import nn

from memlib import adapters, inpaint, likelihood, nets, noise, sample, train
from memlib.denoiser import classifier_free, evaluated, guided
from memlib.papers import i2i

SIGMAS = noise.karras(4, 0.1, 10.0)


def unet(dropout=0.3):
    torch.manual_seed(0)
    return nets.Preconditioned(nets.UNet(8, 1, (16, 32), layers=1, dropout=dropout))


class Normed(nn.Module):
    """A denoiser with dropout of two kinds and batch norm, quick to differentiate."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.SiLU(), nn.Linear(8, 3))

    def forward(self, x, sigma):
        return nn.functional.dropout(x, 0.1, self.training) + 0.1 * self.layers(x)


def loss(net, generator):
    x0 = torch.randn(4, 1, 8, 8, generator=generator)
    return (net(x0, 0.5) - x0).square().mean()


def test_a_network_that_was_just_trained_samples_as_it_does_in_evaluation_mode():
    """Dropout of 0.3, two steps of `fit`, the same seeds: twice the same images, and those of evaluation mode."""
    net = unet()
    list(train.fit(net, loss, 2))
    start = sample.start(SIGMAS, range(4), (1, 8, 8))
    assert net.training
    first, second = (sample.ancestral(net, start, SIGMAS, 1.0, noise.seeded(range(4))) for _ in range(2))
    assert torch.equal(first, second) and all(module.training for module in net.modules())
    net.eval()
    assert torch.equal(first, sample.ancestral(net, start, SIGMAS, 1.0, noise.seeded(range(4))))
    with torch.no_grad():  # and in training mode it would differ
        assert (net.train()(start, SIGMAS[0]) - net(start, SIGMAS[0])).abs().max() > 0.01


X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
ROOMS = {
    "ancestral": lambda net: sample.ancestral(net, 10 * X, SIGMAS),
    "ancestral path": lambda net: torch.stack(list(sample.ancestral_path(net, 10 * X, SIGMAS))),
    "heun": lambda net: sample.heun(net, 10 * X, SIGMAS),
    "heun path": lambda net: torch.stack(list(sample.heun_path(net, 10 * X, SIGMAS))),
    "inpaint": lambda net: inpaint.inpaint(net, X, X > 0, SIGMAS, 2, noise.seeded(range(5))),
    "reconstruct": lambda net: inpaint.reconstruct(net, X, 1.0, SIGMAS, noise.seeded(range(5))),
    "likelihood": lambda net: (
        likelihood.log_likelihood(net, X.double(), 0.5, 5.0, terminal=likelihood.prior(5.0), tol=1e-3).value
    ),
}
WRAPPED = {
    "itself": lambda net: net,
    "a partial": lambda net: functools.partial(_with, net=net),
    "a closure": lambda net: lambda x, sigma: net(x, sigma).clamp(-9, 9),
    "its method": lambda net: net.forward,
    "guided": lambda net: guided(net, lambda x, sigma: -net(x, sigma).square().sum(1), 0.1),
    "classifier-free": lambda net: classifier_free(net, copy.deepcopy(net), 2.0),
    "part of another": lambda net: Around(net),
}


def _with(x, sigma, net):
    return net(x, sigma)


class Around(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, sigma):
        return self.net(x, sigma)


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_runs_a_network_in_evaluation_mode(room):
    net = Normed().to(torch.float64 if room == "likelihood" else torch.float32)
    net.layers[1].running_mean += 0.3
    run = ROOMS[room]
    expected, state = run(copy.deepcopy(net).eval()), copy.deepcopy(net.state_dict())
    torch.manual_seed(5)
    assert torch.equal(run(net.train()), expected)
    assert all(module.training for module in net.modules())
    assert all(torch.equal(t, state[name]) for name, t in net.state_dict().items())  # the running mean too


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_however_the_network_is_wrapped(wrapped):
    net = Normed()
    wrap = WRAPPED[wrapped]
    expected = sample.heun(wrap(copy.deepcopy(net).eval()), 10 * X, SIGMAS)
    assert torch.equal(sample.heun(wrap(net.train()), 10 * X, SIGMAS), expected)


def test_a_network_of_discrete_levels_and_one_in_a_function():
    bar = torch.linspace(0.99, 0.01, 20, dtype=torch.float64)
    net = unet().net.unet
    for called in (net, lambda x, t: net(x, t)):
        denoiser = adapters.from_discrete(called, bar, "eps")
        start = sample.start(denoiser.sigmas, range(2), (1, 8, 8))
        first, second = (sample.ancestral(denoiser, start, denoiser.sigmas[::5]) for _ in range(2))
        assert torch.equal(first, second) and net.training


def test_modes_of_parts_come_back_as_they_were():
    net = Normed().train()
    net.layers[1].eval()  # a batch norm that fine-tuning leaves alone
    modes = [module.training for module in net.modules()]
    path = sample.ancestral_path(net, 10 * X, SIGMAS)
    next(path)
    assert [module.training for module in net.modules()] == modes  # between two states too
    failing = evaluated(lambda x, sigma: net(x, sigma)[:, 9])
    with pytest.raises(IndexError):
        failing(X, torch.tensor(1.0))
    assert [module.training for module in net.modules()] == modes


def test_a_thread_that_trains_meanwhile_stays_in_training_mode():
    net, seen = Normed().train(), []

    def slow(x, sigma):
        thread = threading.Thread(target=lambda: (net(X, 1.0), seen.append(net.training)))
        thread.start()
        thread.join()
        return x

    evaluated(slow)(X, torch.tensor(1.0))
    assert seen == [True]


def test_a_stack_hands_its_mode_to_its_networks():
    stack = nets.Stack([Normed(), Normed()])  # whose dropout cannot run in a stack at all
    start = 10 * torch.randn(6, 3)
    assert torch.equal(sample.heun(stack.train(), start, SIGMAS), sample.heun(stack.eval(), start, SIGMAS))
    assert not any(net.training for net in stack.unstack())
    with pytest.raises(RuntimeError, match="vmap"):
        stack.train()(start, 1.0)


@pytest.mark.parametrize("mode", [True, False])
def test_fit_returns_the_mode_it_found(mode):
    for end in ("whole", "closed", "raised"):
        net = Normed().train(mode)
        net.layers[2].train(not mode)
        before = [module.training for module in net.modules()]
        if end == "raised":
            with pytest.raises(ZeroDivisionError):
                list(train.fit(net, lambda net, generator: 1 / 0, 3))
        else:
            steps = train.fit(net, lambda net, g: net(torch.randn(4, 3, generator=g), 1.0).square().mean(), 3)
            next(steps)
            assert net.training
            steps.close() if end == "closed" else list(steps)
        assert [module.training for module in net.modules()] == before


@pytest.mark.parametrize("family", ["mae", "vqgan", "diffusion"])
def test_completers_complete_in_evaluation_mode(family):
    torch.manual_seed(0)
    model = {
        "mae": lambda: i2i.MAE.small((1, 8, 8), 4, width=16, depth=1, heads=2),
        "vqgan": lambda: i2i.VQGAN.small((1, 8, 8), 4),
        "diffusion": lambda: i2i.Inpainter.small((1, 8, 8), (8, 16)),
    }[family]()
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    for module in dropouts:
        module.p = 0.5
    images, mask = torch.rand(3, 1, 8, 8), torch.zeros(8, 8, dtype=torch.bool)
    mask[:4, :4] = True
    assert dropouts
    first, second = (model.train().complete(images, mask, noise.seeded(range(3))) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, model.eval().complete(images, mask, noise.seeded(range(3))))
