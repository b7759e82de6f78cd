"""Networks: shapes, the preconditioning's promises, and that each can be trained to beat the linear denoiser."""

import copy

import pytest
import torch
from diffusers import EDMEulerScheduler

from memlib import losses, nets, noise
from memlib.denoiser import pair

NETS = {
    "mlp": lambda: (nets.MLP(3), (3,)),
    "residual": lambda: (nets.ResidualMLP((1, 4, 4), width=64), (1, 4, 4)),
    "unet": lambda: (nets.UNet(8, 1, (16, 32), layers=1), (1, 8, 8)),
}


@pytest.mark.parametrize("name", NETS)
def test_levels_as_float_scalar_or_per_sample(name):
    torch.manual_seed(0)
    net, shape = NETS[name]()
    denoise = nets.Preconditioned(net).eval()
    for parameter in denoise.parameters():    # some layers start at 0; the time code must reach the output
        torch.nn.init.normal_(parameter, std=0.1)
    x = torch.randn(3, *shape)
    for level in (0.5, torch.tensor(0.5), torch.tensor([0.5])):
        torch.testing.assert_close(denoise(x, level), denoise(x, torch.full((3,), 0.5)))
    assert denoise(x, 0.5).shape == x.shape and torch.equal(denoise(x, 0.0), x)
    bare = [net(x, torch.full((3,), t)) for t in (-1.0, 0.5)]
    assert (bare[0] - bare[1]).abs().max() > 1e-4


def test_preconditioning_is_karras_table_1():
    """Coefficients against diffusers' EDM scheduler; the weight makes F's error count equally."""
    theirs = EDMEulerScheduler(sigma_data=0.5)
    x, sigma = torch.randn(4, 2, dtype=torch.float64), 0.37
    seen = {}

    class Constant(torch.nn.Module):
        def forward(self, scaled, t):
            seen.update(x=scaled, t=t)
            return torch.full_like(scaled, 0.3)

    wrapped = nets.Preconditioned(Constant(), 0.5)
    got = wrapped(x, sigma)
    torch.testing.assert_close(seen["x"], theirs.precondition_inputs(x, sigma))
    torch.testing.assert_close(got, theirs.precondition_outputs(x, torch.full_like(x, 0.3), sigma))
    torch.testing.assert_close(seen["t"], torch.full((4,), sigma, dtype=torch.float64).log() / 4)
    level = torch.tensor([sigma], dtype=torch.float64)
    c_out = sigma * 0.5 / (sigma**2 + 0.25) ** 0.5
    torch.testing.assert_close(wrapped.weight(level), (sigma / c_out) ** 2 * torch.ones_like(level))


@pytest.mark.parametrize("name", NETS)
def test_a_few_steps_beat_the_linear_denoiser(name):
    """The data are two clusters: the best linear denoiser cannot tell them apart, a network soon does."""
    torch.manual_seed(0)
    net, shape = NETS[name]()
    denoise = nets.Preconditioned(net, sigma_data=0.5)
    centre = torch.full(shape, 0.5)
    optimiser = torch.optim.Adam(denoise.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        sign = torch.randint(2, (64,), generator=generator) * 2 - 1
        x0 = sign.reshape(-1, *[1] * len(shape)) * centre
        sigma = noise.lognormal(64, -0.5, 1.0, generator)
        loss = losses.denoising(*pair(denoise, x0, sigma, noise.drawn(generator)), denoise.weight(sigma)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x0 = torch.cat([centre[None], -centre[None]]).repeat(64, *[1] * len(shape))
    sigma = torch.full((128,), 0.5)
    with torch.no_grad():
        eps_hat, eps = pair(denoise, x0, sigma, noise.drawn(generator))
        x = x0 + 0.5 * eps
        linear = (x - 0.25 / (0.25 + 0.25) * x) / 0.5
    assert losses.denoising(eps_hat, eps).mean() < 0.8 * losses.denoising(linear, eps).mean()


def test_unet_refuses_what_cannot_be_halved():
    with pytest.raises(ValueError, match="10 pixels cannot be halved 2 times"):
        nets.UNet(10, widths=(32, 32, 32))


def test_a_stack_is_its_networks_and_they_train_apart():
    torch.manual_seed(0)
    singles = [nets.Preconditioned(nets.ResidualMLP((1, 2, 2), width=16, blocks=1)).double() for _ in range(3)]
    for net in singles:
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    stack = nets.Stack(singles)
    assert sum(p.numel() for p in stack.parameters()) == 3 * sum(p.numel() for p in singles[0].parameters())
    x, sigma = torch.randn(12, 1, 2, 2, dtype=torch.float64), torch.rand(12, dtype=torch.float64) + 0.1
    blocks = list(zip(singles, x.split(4), sigma.split(4), strict=True))
    torch.testing.assert_close(stack(x, sigma), torch.cat([net(*block) for net, *block in blocks]))
    torch.testing.assert_close(stack(x, 0.5), torch.cat([net(block, 0.5) for net, block, _ in blocks]))

    stack(x, sigma).square().sum().backward()
    for i, (net, *block) in enumerate(blocks):
        net(*block).square().sum().backward()
        for name, weight in zip(stack.names, stack.weights, strict=True):
            torch.testing.assert_close(weight.grad[i], dict(net.named_parameters())[name].grad)

    with torch.no_grad():
        stack.weights[0][1] += 1
    for i, (net, *block) in enumerate(blocks):
        same = torch.equal(stack.unstack()[i](*block), net(*block))
        assert same == (i != 1)    # a copy of its own weights, and of no other's
    copied = copy.deepcopy(stack)
    assert torch.equal(copied(x, sigma), stack(x, sigma))
    with pytest.raises(ValueError, match="one architecture"):
        nets.Stack([nets.MLP(2, 8), nets.MLP(2, 9)])
