"""Class-conditional networks, alone and in a stack: labels reach the output, and networks in a stack train as alone."""

import copy
from functools import partial

import pytest
import torch

from memlib import losses, nets, noise, sample, train
from memlib.denoiser import classifier_free, pair
from memlib.errors import Refused
from memlib.random import choose, keyed

CLASSES = 3
NETS = {
    "residual": lambda classes: (nets.ResidualMLP((1, 4, 4), width=32, blocks=1, classes=classes), (1, 4, 4)),
    "unet": lambda classes: (nets.UNet(8, 1, (16, 32), layers=1, classes=classes), (1, 8, 8)),
}


@pytest.mark.parametrize("name", NETS)
def test_a_label_changes_the_output_and_none_is_a_label_of_its_own(name):
    torch.manual_seed(0)
    net, shape = NETS[name](CLASSES)
    denoise = nets.Preconditioned(net).eval()
    for parameter in denoise.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, y = torch.randn(4, *shape), torch.tensor([0, 1, 2, CLASSES])
    told, untold = denoise(x, 0.5, y), denoise(x, 0.5)
    assert ((told - untold).flatten(1).abs().amax(1) > 1e-4).tolist() == [True, True, True, False]
    torch.testing.assert_close(told[3], untold[3])
    torch.testing.assert_close(partial(denoise, y=y)(x, torch.tensor(0.5)), told)
    beyond = classifier_free(denoise, partial(denoise, y=y), 2.0)(x, torch.tensor(0.5))
    torch.testing.assert_close(beyond, 2 * told - untold)
    with pytest.raises(IndexError):
        denoise(x, 0.5, y + 1)


@pytest.mark.parametrize("name", NETS)
def test_a_network_without_classes_refuses_labels(name):
    net, shape = NETS[name](0)
    with pytest.raises(Refused, match="knows no labels"):
        nets.Preconditioned(net)(torch.randn(2, *shape), 0.5, torch.zeros(2, dtype=torch.long))


def test_dropped_labels_are_replaced_at_the_rate():
    y = torch.arange(3).repeat(2000)
    found = nets.dropped(y, 3, 0.1, keyed(0, 0))
    gone = found == 3
    assert torch.equal(found[~gone], y[~gone])
    assert abs(gone.double().mean() - 0.1) < 4 * (0.09 / len(y)) ** 0.5  # four standard errors
    assert not nets.dropped(y, 3, 0.0, keyed(0, 0)).eq(3).any() and nets.dropped(y, 3, 1.0, keyed(0, 0)).eq(3).all()


def images(n, generator):
    """Images (n, 2) that depend on labels 0 to 2: means apart by more than the deviation, and a tenth about them."""
    y = torch.randint(3, (n,), generator=generator)
    means = torch.tensor([[1.0, 0], [-1, 0], [0, 1]])
    return means[y] + 0.1 * torch.randn(n, 2, generator=generator), y


def trained(count, alone=None, steps=60):
    """A stack of conditional networks, or the one called `alone` by itself, with the same starts and draws."""
    torch.manual_seed(1)
    members = [nets.Preconditioned(nets.ResidualMLP((2,), width=16, blocks=1, classes=3), 0.8) for _ in range(count)]
    kept = range(count) if alone is None else [alone]
    net = nets.Stack(members) if alone is None else members[alone]
    x0, y0 = images(256, keyed(0, 0))

    def loss(net, generator):
        rows = [choose(torch.arange(256), 32, generator) for _ in range(count)]
        sigma = noise.lognormal(32 * count, -0.5, 1.0, generator).split(32)
        eps = torch.randn(32 * count, 2, generator=generator).split(32)
        y = nets.dropped(y0[torch.cat(rows)], 3, 0.1, generator).split(32)
        x, sigma, eps, y = (torch.cat([part[i] for i in kept]) for part in ([x0[r] for r in rows], sigma, eps, y))
        both = pair(lambda z, level: net(z, level, y), x, sigma, lambda _: eps)
        return losses.denoising(*both, members[0].weight(sigma)).unflatten(0, (len(kept), -1)).mean(1).sum()

    return train.train(net, loss, steps, lr=3e-3, clip=None, ema=copy.deepcopy(net), decay=0.99)


def test_one_network_trained_alone_and_in_the_stack_agree():
    """With its average: weights of networks in a stack never mix, and the sum over networks leaves each gradient."""
    stack, x, y = trained(3), torch.randn(6, 2), torch.tensor([0, 1, 2, 3, 0, 1])
    for i, net in enumerate(stack.unstack()):
        torch.testing.assert_close(net(x, 0.5, y), trained(3, alone=i)(x, 0.5, y), rtol=1e-3, atol=1e-4)


def test_a_conditional_network_learns_its_classes():
    net = trained(1, alone=0, steps=800)
    sigmas = noise.karras(12, 0.02, 10.0)
    for label, mean in enumerate([[1.0, 0], [-1, 0], [0, 1]]):
        y = torch.full((200,), label)
        made = sample.heun(partial(net, y=y), sample.start(sigmas, range(200), (2,)), sigmas)
        assert (made.mean(0) - torch.tensor(mean)).norm() < 0.3


def test_joint_clipping_of_a_stack_is_refused():
    stack = nets.Stack([nets.Preconditioned(nets.MLP(2, 8, 1)) for _ in range(2)])
    with pytest.raises(Refused, match="clip=None"):
        train.fit(stack, lambda net, generator: net(torch.ones(2, 2), 1.0).sum(), 3)


class Normed(torch.nn.Module):
    """A linear map, batch norm and another linear map: a classifier of two classes."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, 4, bias=False), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
        )

    def forward(self, x, sigma):
        return self.layers(x)


def test_batch_statistics_in_a_stack_are_each_network_s_own():
    """Two networks on data of other means: each running mean, and each average of it, is that of one trained alone."""
    torch.manual_seed(0)
    singles = [Normed() for _ in range(2)]
    batches = [torch.randn(16, 2), 5 + torch.randn(16, 2)]
    y = torch.arange(16) % 2

    def loss_of(inputs, count):
        def loss(net, generator):
            logits = net(inputs, 0.0).unflatten(0, (count, -1))
            return sum(torch.nn.functional.cross_entropy(one, y) for one in logits)

        return loss

    stack = nets.Stack(singles)
    kept = train.train(stack, loss_of(torch.cat(batches), 2), 20, clip=None, ema=copy.deepcopy(stack))
    for own, batch, found in zip(singles, batches, kept.unstack(), strict=True):
        alone = train.train(own, loss_of(batch, 1), 20, clip=None, ema=copy.deepcopy(own))
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found(batch, 0.0), alone(batch, 0.0), rtol=1e-3, atol=1e-3)
