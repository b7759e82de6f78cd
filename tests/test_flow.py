"""Flow matching as a denoiser: against diffusers' own Euler sampler, and against a density whose flow is known."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DModel

from memlib import adapters, sample
from memlib.analytic import Empirical
from memlib.errors import Refused


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    sizes = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    return UNet2DModel(8, 1, 1, num_class_embeds=3, **blocks, **sizes).eval()


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_ddim_in_sigma_is_the_euler_sampler_of_diffusers(net, shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    denoiser = adapters.from_flow(net)
    start, y = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(4) % 3
    times = torch.linspace(1, 0, 9)[:-1]
    scheduler.set_timesteps(sigmas=times.tolist())
    want = start
    with torch.no_grad():
        for t in scheduler.timesteps:
            want = scheduler.step(net(want, t, y).sample, t, want).prev_sample
    sigmas = denoiser.grid(8, shift).float()
    got = sample.ancestral(lambda x, sigma: denoiser(x, sigma, y), sigmas[0] * start, sigmas)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_the_velocity_of_known_points_gives_their_exact_denoiser():
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = Empirical(points)

    def velocity(x, t):
        """v = (x_t - x0) / t for the posterior mean of x0, written in the clock of the flow."""
        t = t[:, None]
        return (x - exact(x / (1 - t), (t / (1 - t))[:, 0])) / t

    denoiser = adapters.from_flow(velocity, timesteps=1)
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for sigma in (0.05, 0.7, 30.0):
        torch.testing.assert_close(denoiser(x, sigma), exact(x, sigma))
    torch.testing.assert_close(denoiser(x, torch.full((10,), 0.7)), exact(x, 0.7))


def test_gradients_reach_the_network_and_bad_numbers_are_refused(net):
    denoiser = adapters.from_flow(net)
    denoiser(torch.ones(2, 1, 8, 8), 0.5, torch.tensor([0, 1])).sum().backward()
    assert all(p.grad is not None for p in net.conv_in.parameters()) and denoiser.grid(4)[-1] == 0
    with pytest.raises(Refused, match="timestep above 0"):
        adapters.from_flow(net, timesteps=0)
    with pytest.raises(Refused, match="1 step or more and a shift above 0, not 0"):
        denoiser.grid(0)
