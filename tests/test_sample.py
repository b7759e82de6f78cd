"""Samplers against diffusers' schedulers, against closed forms, and the algebra behind `one clock`."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, HeunDiscreteScheduler

from memlib import noise, sample
from memlib.analytic import Empirical, GaussianMixture
from memlib.errors import Refused

MIXTURE = GaussianMixture(torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), std=0.2)


def drive(scheduler, n, eta=None):
    """A diffusers scheduler on the exact eps of MIXTURE, in VP coordinates; its states divided by alpha."""
    scheduler.set_timesteps(n)
    bar = scheduler.alphas_cumprod.double()
    t = scheduler.timesteps
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start, states, used = x / bar[t[0]].sqrt(), [], []
    for i, step in enumerate(t):
        a = bar[step]
        sigma = (1 / a - 1).sqrt()
        eps_hat = (x / a.sqrt() - MIXTURE(x / a.sqrt(), sigma)) / sigma
        fresh = torch.randn(8, 4, generator=torch.Generator().manual_seed(100 + i), dtype=torch.float64)
        used.append(fresh)
        if eta is None:
            x = scheduler.step(eps_hat, step, x, generator=torch.Generator().manual_seed(100 + i)).prev_sample
        else:
            x = scheduler.step(eps_hat, step, x, eta=eta, variance_noise=fresh).prev_sample
        before = bar[t[i + 1]] if i + 1 < n else torch.tensor(1.0, dtype=torch.float64)
        states.append(x / before.sqrt())
    return start, states, used


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ancestral_is_diffusers_ddim_step_by_step(eta):
    start, theirs, used = drive(DDIMScheduler(clip_sample=False), 20, eta)
    draws = iter(used)
    ours = list(sample.ancestral_path(MIXTURE, start, noise.ddpm(20), eta, lambda x: next(draws)))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)  # diffusers keeps its alphas in float32


def test_ancestral_with_eta_1_is_diffusers_ddpm():
    start, theirs, used = drive(DDPMScheduler(clip_sample=False), 25)
    draws = iter(used)
    ours = list(sample.ancestral_path(MIXTURE, start, noise.ddpm(25), 1.0, lambda x: next(draws)))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_heun_is_diffusers_heun():
    sigmas = noise.karras(12, 0.02, 20.0)
    scheduler = HeunDiscreteScheduler(prediction_type="sample")
    scheduler.set_timesteps(12)
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    start = 20 * torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theirs = start.clone()
    for i, t in enumerate(scheduler.timesteps):
        theirs = scheduler.step(MIXTURE(theirs, scheduler.sigmas[i]), t, theirs).prev_sample
    torch.testing.assert_close(sample.heun(MIXTURE, start, sigmas), theirs, rtol=1e-6, atol=1e-6)


def test_ddim_in_vp_coordinates_is_euler_in_sigma():
    a, b = 0.3, 0.7  # alpha_bar before and after the step
    x_t = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    sigma, target = math.sqrt(1 / a - 1), math.sqrt(1 / b - 1)
    x = x_t / a**0.5
    x0 = MIXTURE(x, sigma)
    eps_hat = (x_t - a**0.5 * x0) / (1 - a) ** 0.5
    song = b**0.5 * x0 + (1 - b) ** 0.5 * eps_hat
    euler = x + (target - sigma) * (x - x0) / sigma
    ours = sample.ancestral(MIXTURE, x, torch.tensor([sigma, target], dtype=torch.float64))
    torch.testing.assert_close(song / b**0.5, euler, rtol=0, atol=3e-15)
    torch.testing.assert_close(ours, euler, rtol=0, atol=3e-15)


def test_ddpm_posterior_is_the_brownian_bridge():
    """Ho et al. eq. 7 in VP coordinates against the bridge from x to D, mean and variance."""
    a, b = 0.3, 0.7
    beta, sigma, target = 1 - a / b, math.sqrt(1 / a - 1), math.sqrt(1 / b - 1)
    g = torch.Generator().manual_seed(2)
    x, fresh = (torch.randn(8, 4, dtype=torch.float64, generator=g) for _ in range(2))
    x0 = MIXTURE(x, sigma)
    mean = b**0.5 * beta / (1 - a) * x0 + (a / b) ** 0.5 * (1 - b) / (1 - a) * (a**0.5 * x)
    want = (mean + (beta * (1 - b) / (1 - a)) ** 0.5 * fresh) / b**0.5
    got = sample.ancestral(MIXTURE, x, torch.tensor([sigma, target], dtype=torch.float64), 1.0, lambda _: fresh)
    torch.testing.assert_close(got, want, rtol=0, atol=3e-15)


@pytest.mark.parametrize(
    "sampler, n", [(sample.heun, 100), (sample.ancestral, 200), (lambda *a: sample.ancestral(*a, eta=1.0), 1000)]
)
def test_samples_of_a_gaussian_have_its_variance(sampler, n):
    target = GaussianMixture(torch.zeros(1, 1, dtype=torch.float64), std=0.7)
    sigmas = noise.karras(n, 0.002, 80.0)
    start = 80 * torch.randn(20_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    std = sampler(target, start, sigmas).std()
    assert abs(std - 0.7) < 0.02


def test_heun_is_second_order_and_ddim_first():
    target = GaussianMixture(torch.zeros(1, 1, dtype=torch.float64), std=0.7)
    start = torch.full((1, 1), 80.0, dtype=torch.float64)
    exact = 80.0 * math.sqrt((0.7**2 + 0.002**2) / (0.7**2 + 80.0**2))
    errors = {}
    for sampler in (sample.ancestral, sample.heun):
        for n in (100, 200):
            last = sampler(target, start, noise.karras(n)[:-1])
            errors[sampler.__name__, n] = abs(last.item() - exact)
    assert 1.8 < errors["ancestral", 100] / errors["ancestral", 200] < 2.2
    assert 3.6 < errors["heun", 100] / errors["heun", 200] < 4.4


def test_sampling_the_perfect_memorizer_returns_training_points():
    points = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    start = noise.seeded(range(200))(torch.empty(200, 6))
    for x in (
        sample.heun(Empirical(points), 80 * start, noise.karras(40)),
        sample.ancestral(Empirical(points), 80 * start, noise.karras(40), 1.0, noise.seeded(range(200))),
    ):
        assert torch.cdist(x.double(), points.double()).amin(1).max() < 1e-6


def test_paths_yield_each_state_once_and_noise_is_not_drawn_in_vain():
    x, sigmas = torch.randn(3, 4, dtype=torch.float64), noise.karras(5)
    calls = []
    path = list(sample.ancestral_path(MIXTURE, x, sigmas, 1.0, lambda v: calls.append(1) or torch.zeros_like(v)))
    assert len(path) == 5 and len(calls) == 4  # the step to 0 needs none
    assert len({p.data_ptr() for p in path}) == 5
    list(sample.ancestral_path(MIXTURE, x, sigmas, 0.0, lambda v: calls.append(1)))
    assert len(calls) == 4 and len(list(sample.heun_path(MIXTURE, x, sigmas))) == 5


def test_float32_samples_stay_float32_on_float64_grids():
    x = sample.heun(Empirical(torch.randn(5, 2)), torch.randn(3, 2), noise.karras(4))
    assert x.dtype == torch.float32 and not x.requires_grad


# Grids and starts that cannot be right.

EXACT = Empirical(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)))
UNIT = noise.seeded(range(100))(torch.empty(100, 6))
SAMPLERS = {"ancestral": sample.ancestral, "heun": sample.heun}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        (noise.karras(5).flip(0), r"the grid rises from 0 to 0\.002: give decreasing levels"),
        (noise.karras(5)[:-1].flip(0), r"the grid rises from 0\.002 to 0\.169753"),
        (torch.tensor([80.0, 1.0, 2.0, 0.0]), "the grid rises from 1 to 2"),
        (torch.tensor([80.0, 0.0, 0.0]), "a step from 0 to 0: give finite levels, 0 only as the last"),
        (torch.tensor([80.0, 1.0, -1.0]), "a step from 1 to -1"),
        (torch.tensor([math.inf, 1.0, 0.0]), r"\(n,\) finite levels from above 0 on, not inf: make one"),
        (torch.tensor([80.0, math.nan, 0.0]), "a step from 80 to nan"),
        (torch.tensor([]), r"\(n,\) finite levels from above 0 on, not \(0,\)"),
        (np.ones((2, 2)), r"\(n,\) finite levels from above 0 on, not \(2, 2\)"),
    ],
)
def test_a_grid_that_cannot_be_sampled_is_refused(sampler, grid, sentence):
    with pytest.raises(Refused, match=sentence):
        SAMPLERS[sampler](EXACT, 80 * UNIT, grid)


def test_encoding_is_the_flow_upwards_and_sampling_leads_back():
    """Of one Gaussian, whose flow scales by sqrt((s^2 + to^2) / (s^2 + from^2)): Karras et al. 2022, eq. 3."""
    target = GaussianMixture(torch.zeros(1, 2, dtype=torch.float64), std=0.7)
    x, grid = torch.randn(5, 2, dtype=torch.float64), noise.karras(200, 0.01, 5.0)[:-1]
    latent = sample.encode(target, x, grid)
    torch.testing.assert_close(latent, x * math.sqrt((0.49 + 25) / (0.49 + 1e-4)), rtol=1e-3, atol=0)
    torch.testing.assert_close(sample.heun(target, latent, grid), x, rtol=1e-3, atol=0)
    with pytest.raises(Refused, match="no slope at sigma = 0: give levels that end above it"):
        sample.encode(target, x, noise.karras(5))
    with pytest.raises(Refused, match="the grid rises"):
        sample.encode(target, x, grid.flip(0))


def test_a_grid_of_one_level_takes_no_step():
    assert torch.equal(sample.heun(EXACT, 80 * UNIT, [80.0]), 80 * UNIT)
    assert torch.equal(sample.start([80.0], range(100), (6,)), 80 * UNIT)


@pytest.mark.parametrize("eta", [1.1, 2.0, -0.1, math.nan])
def test_an_eta_beyond_ddpm_is_refused(eta):
    with pytest.raises(Refused, match=f"eta is {eta}: give 0"):
        sample.ancestral(EXACT, 80 * UNIT, noise.karras(5), eta)


def test_grids_as_lists_and_arrays():
    grid = noise.karras(5)
    for given in (grid.tolist(), grid.numpy(), tuple(grid.tolist())):
        torch.testing.assert_close(sample.heun(EXACT, 80 * UNIT, given), sample.heun(EXACT, 80 * UNIT, grid))
        assert torch.equal(sample.start(given, range(3), (6,)), sample.start(grid, range(3), (6,)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_start_without_the_first_level_is_announced(sampler):
    """It would sample at random what the prior at a far lower level says: wrong counts in silence."""
    run = SAMPLERS[sampler]
    with pytest.warns(
        UserWarning, match=r"root mean square 1\.\d* where the grid starts at sigma = 80: give sigmas\[0\]"
    ):
        run(EXACT, UNIT, noise.karras(5))
    with pytest.warns(UserWarning, match="root mean square 6.* where the grid starts at sigma = 80"):
        run(EXACT, 80 * (80 * UNIT), noise.karras(5))  # multiplied twice
    with pytest.raises(Refused, match="the start x is not finite"):
        run(EXACT, math.nan * UNIT, noise.karras(5))


def test_starts_that_may_be_right_are_not_announced(recwarn):
    images = torch.rand(3, 6) * 2 - 1
    sample.heun(EXACT, 80 * UNIT, noise.karras(5))
    sample.heun(EXACT, images + 0.08 * UNIT[:3], [0.08, 0.0])  # data and noise of a low level
    sample.heun(EXACT, images + 2.0 * UNIT[:3], [2.0, 0.0])
    for n in range(1, 40):  # few coordinates, whose mean square varies
        x = 80 * noise.seeded([n])(torch.empty(1, 2))
        sample.ancestral(Empirical(torch.zeros(2, 2)), x, noise.karras(5))
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]


def test_no_sampler_reads_the_device_in_its_loop():
    """Coefficients and checks are Python floats before the first step: nothing of a tensor is read after it."""

    class Counted(torch.Tensor):
        reads = 0

        def item(self):
            Counted.reads += 1
            return super().item()

        def tolist(self):
            Counted.reads += 1
            return super().tolist()

        def __bool__(self):
            Counted.reads += 1
            return super().__bool__()

        def __float__(self):
            Counted.reads += 1
            return super().__float__()

    reads = []
    for n in (3, 30):
        for run in (lambda *a: sample.ancestral(*a, eta=1.0), sample.heun):
            Counted.reads = 0
            run(lambda x, sigma: 0 * x, (80 * UNIT).as_subclass(Counted), noise.karras(n))
            reads.append(Counted.reads)
    assert reads[:2] == reads[2:] and max(reads) <= 1


def test_a_strength_is_the_level_at_which_diffusers_starts_from_an_image():
    """Of the schedule of Stable Diffusion 1.5: the noise added to an image at the timestep that is picked."""
    scheduler = DDIMScheduler(1000, 0.00085, 0.012, "scaled_linear", set_alpha_to_one=False)
    scheduler.set_timesteps(1000)
    image, eps = torch.randn(2, 1, 4, 4).double()
    for value, expected in {0.25: 0.69, 0.5: 1.61, 0.75: 4.08, 1.0: 14.6}.items():
        first = scheduler.timesteps[1000 - int(1000 * value)]
        noised = scheduler.add_noise(image[None], eps[None], first[None])[0]
        alpha = scheduler.alphas_cumprod[first].double().sqrt()
        level = noise.strength(scheduler.alphas_cumprod, value)
        torch.testing.assert_close(noised / alpha, image + level * eps, rtol=1e-4, atol=1e-4)
        assert level == pytest.approx(expected, rel=0.01)
    for wrong in (0.0, -0.5, 1.01, float("nan")):
        with pytest.raises(Refused, match="a strength is above 0 and at most 1"):
            noise.strength(scheduler.alphas_cumprod, wrong)
    with pytest.raises(Refused, match="pure noise"):
        noise.strength(torch.tensor([0.9, 0.5, 0.0]), 1.0)


def test_image_to_image_keeps_what_the_noise_leaves():
    """Between two points: from a low level the sampler returns to the point it came from, from a high one to either."""
    points = torch.tensor([[-1.0, 0], [1, 0]]).double()
    denoiser, images = Empirical(points), points[torch.zeros(2000, dtype=torch.long)]
    ends = {}
    for level in (0.2, 20.0):
        grid = noise.karras(20, 0.01, level)
        x = sample.start_from(images, grid, range(2000))
        torch.testing.assert_close(x, images + level * noise.seeded(range(2000))(images))
        assert torch.equal(sample.start_from(images[:3], grid, range(3)), x[:3])  # the seed is the name of the sample
        ends[level] = float((sample.heun(denoiser, x, grid)[:, 0] < 0).double().mean())
    assert ends[0.2] == 1 and abs(ends[20.0] - 0.52) < 0.05  # Phi(1/20) = .52, four standard errors
