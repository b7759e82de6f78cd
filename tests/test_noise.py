"""The clock against the formulas of its papers and against diffusers; keyed noise against its promise."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from scipy import stats

from memlib import noise
from memlib.errors import Refused


def test_grids_decrease_to_zero():
    for grid in (noise.karras(18), noise.ddpm(50), noise.vp(40), noise.ve(40)):
        assert grid.dtype == torch.float64 and grid[-1] == 0 and (grid.diff() < 0).all()
    assert [len(noise.karras(1)), len(noise.ddpm(1000)), len(noise.vp(7)), len(noise.ve(7))] == [2, 1001, 8, 8]


def test_karras_is_equation_5():
    n, low, high, rho = 6, 0.002, 80.0, 7.0
    want = [(high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n)]
    torch.testing.assert_close(noise.karras(n), torch.tensor([*want, 0.0], dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [10, 50, 1000])
def test_ddpm_visits_what_diffusers_visits(n):
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(n)
    bar = DDPMScheduler().alphas_cumprod.double()[scheduler.timesteps]
    torch.testing.assert_close(noise.ddpm(n)[:-1], (1 / bar - 1).sqrt(), rtol=1e-4, atol=0)  # theirs is float32
    with pytest.raises(ValueError, match="1001"):
        noise.ddpm(1001)


BAR = DDPMScheduler().alphas_cumprod
LEVELS = noise.discrete_levels(BAR)


def timesteps(grid):
    """The timesteps of a grid over `BAR`, decreasing."""
    return torch.searchsorted(LEVELS, grid[:-1]).tolist()


def test_every_grid_starts_within_a_stride_of_the_top():
    """It was 130, 3.4, 6.1 and 157: a stride rounded down leaves the top of the schedule unvisited."""
    starts = {n: round(noise.ddpm(n)[0].item(), 1) for n in (50, 501, 600, 1000)}
    assert starts == {50: 130.1, 501: 155.8, 600: 155.8, 1000: 157.4}
    for spacing in ("leading", "trailing", "linspace"):
        for n in range(1, 1001):
            grid = noise.discrete(BAR, n, spacing)
            assert len(grid) == n + 1 and grid[-1] == 0 and (grid.diff() < 0).all()
            assert 999 - timesteps(grid[[0, -1]])[0] < math.ceil(1000 / n)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_spacings_are_those_of_diffusers(spacing):
    """Where theirs fill the range: a stride that divides T; n of them, not n + 1; more than one for linspace."""
    scheduler, compared = DDIMScheduler(timestep_spacing=spacing, steps_offset=1), 0
    for n in range(2, 1000):
        scheduler.set_timesteps(n)
        if (spacing == "leading" and 1000 % n) or len(scheduler.timesteps) != n:
            continue
        grid = noise.discrete(BAR, n, spacing, offset=1 if spacing == "leading" else 0)
        assert timesteps(grid) == scheduler.timesteps.tolist(), n
        compared += 1
    assert compared == {"leading": 14, "trailing": 936, "linspace": 998}[spacing]


def test_steps_that_do_not_fit_are_refused():
    short = BAR[:20]
    for n in (0, -1, 21, 50):  # 50 of 20 was the lowest level 50 times, and 0 meant all
        with pytest.raises(Refused, match=f"{n} sampling steps do not fit a model of 20 noise levels: choose 1 to 20"):
            noise.discrete(short, n)
    assert len(noise.discrete(short)) == len(noise.discrete(short, 20)) == 21
    for offset, n, spacing in ((1, 1000, "leading"), (21, 50, "leading"), (-1, 50, "leading"), (1, 50, "trailing")):
        with pytest.raises(Refused, match=f"an offset of {offset} does not fit {n} steps of 1000"):
            noise.discrete(BAR, n, spacing, offset)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_a_level_of_pure_noise_is_replaced_by_the_one_below(spacing):
    bar = DDPMScheduler(rescale_betas_zero_snr=True).alphas_cumprod
    assert bar[-1] == 0
    top = (1 / bar[-2].double() - 1).sqrt()
    for n in (1, 10, 50, 499):
        grid, other = noise.discrete(bar, n, spacing), noise.discrete(BAR, n, spacing)
        assert grid.isfinite().all() and len(grid) == n + 1
        if spacing != "leading":
            assert grid[0] == top
        there = torch.searchsorted(noise.discrete_levels(bar), grid[:-1]).tolist()
        assert there[1:] == timesteps(other)[1:]  # all others stay
    assert noise.discrete(bar)[0] == top and len(noise.discrete(bar)) == 1000
    with pytest.raises(Refused, match="1000 sampling steps do not fit a model of 999"):
        noise.discrete(bar, 1000)
    with pytest.raises(Refused, match="visit a level twice"):
        noise.discrete(bar, 999, "trailing")


@pytest.mark.parametrize("bar", [1 - BAR, BAR.flip(0), torch.tensor([0.9, math.nan]), torch.tensor([]), torch.ones(3)])
def test_what_is_no_alpha_bar_is_refused(bar):
    with pytest.raises(Refused, match="alphas_cumprod must be"):
        noise.discrete(bar)


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        (lambda: noise.karras(0), "at least one step, not 0"),
        (lambda: noise.ve(-1), "at least one step, not -1"),
        (lambda: noise.vp(0), "at least one step, not 0"),
        (lambda: noise.karras(9, 80.0, 0.002), "0 < sigma_min < sigma_max, not sigma_min=80.0 and sigma_max=0.002"),
        (lambda: noise.karras(9, 0.0), "0 < sigma_min"),
        (lambda: noise.ve(9, 50.0, 0.01), "0 < sigma_min < sigma_max"),
        (lambda: noise.vp(9, t_min=1.5), "0 < t_min < 1, not t_min=1.5"),
        (lambda: noise.karras(9, sigma_max=math.nan), "sigma_max=nan"),
    ],
)
def test_grids_that_do_not_descend_are_refused(grid, sentence):
    with pytest.raises(Refused, match=sentence):
        grid()


def test_vp_and_ve_ends():
    t = torch.tensor([1.0], dtype=torch.float64)
    assert noise.vp(9)[0] == noise.vp_sigma(t)
    # alpha_bar(1) = exp(-(0.1 + 20) / 2)
    torch.testing.assert_close(1 / (1 + noise.vp_sigma(t) ** 2), torch.exp(-10.05 * t), rtol=1e-9, atol=0)
    ratios = noise.ve(9)[1:-1] / noise.ve(9)[:-2]
    torch.testing.assert_close(ratios, ratios[:1].expand(8), rtol=1e-12, atol=0)
    torch.testing.assert_close(noise.ve(9)[[0, 8]], torch.tensor([50.0, 0.01], dtype=torch.float64))


def test_training_draws_have_their_laws():
    g = torch.Generator().manual_seed(0)
    draws = noise.lognormal(4000, -0.5, 1.2, g).log()
    assert stats.kstest(draws.numpy(), stats.norm(-0.5, 1.2).cdf).pvalue > 1e-3
    draws = noise.loguniform(4000, 0.01, 50.0, g).log()
    low, high = torch.tensor([0.01, 50.0]).log().tolist()
    assert stats.kstest(draws.numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3
    # Invert the VP clock: its times must be uniform.
    log = torch.log1p(noise.uniform_time(4000, generator=g).double() ** 2)
    t = (-0.1 + (0.01 + 2 * 19.9 * log).sqrt()) / 19.9
    assert stats.kstest(t.numpy(), stats.uniform(1e-3, 0.999).cdf).pvalue > 1e-3
    grid = noise.ddpm(10)
    steps = noise.uniform_step(4000, grid, g)
    counts = torch.stack([(steps == s).sum() for s in grid])
    assert counts[-1] == 0 and stats.chisquare(counts[:-1].numpy()).pvalue > 1e-3


def test_level_fits_the_sample():
    x = torch.zeros(3, 2, 5)
    assert noise.expand_sigma(0.5, x).shape == (1, 1, 1)
    assert noise.expand_sigma(torch.arange(3.0), x.double()).dtype == torch.float64
    with pytest.raises(ValueError, match="4 values for a batch of 3"):
        noise.expand_sigma(torch.ones(4), x)
    got = noise.add_noise(x, torch.tensor([0.0, 1.0, 2.0]), torch.ones_like)
    assert got.flatten(1).unique(dim=1).flatten().tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("shape", [(2,), (7,), (1, 8, 8), (3, 5), (1001,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_seed_names_its_noise_bit_for_bit(shape, dtype):
    together, back = noise.seeded(range(37)), noise.seeded([*range(36, -1, -1)])
    alone = [noise.seeded([i]) for i in range(37)]
    calls = []
    for _ in range(3):
        batch = together(torch.empty(37, *shape, dtype=dtype))
        assert torch.equal(batch, torch.cat([a(torch.empty(1, *shape, dtype=dtype)) for a in alone]))
        assert torch.equal(batch, back(torch.empty(37, *shape, dtype=dtype)).flip(0))
        calls.append(batch)
    assert not torch.equal(calls[0], calls[1]) and not torch.equal(calls[1], calls[2])


def test_keyed_noise_is_standard_normal_and_uncorrelated():
    source = noise.seeded(range(1000))
    first, second = (source(torch.empty(1000, 501, dtype=torch.float64)) for _ in range(2))
    assert stats.kstest(first.flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(first[:, -1].numpy(), "norm").pvalue > 1e-3  # the odd coordinate out
    pairs = {
        "seeds": (first[:-1], first[1:]),
        "places": (first[:, :-1], first[:, 1:]),
        "calls": (first, second),
        "halves of Box-Muller": (first[:, :250], first[:, 251:501]),
        "their squares": (first[:, :250] ** 2 - 1, first[:, 251:501] ** 2 - 1),
    }
    for name, (a, b) in pairs.items():
        z = (a * b).mean() / ((a**2).mean() * (b**2).mean()).sqrt() * a.numel() ** 0.5
        assert abs(z) < 4.5, name
    with pytest.raises(ValueError, match="1000 samples and asked for 3"):
        source(torch.empty(3, 2))


def test_neighbouring_and_negative_seeds_differ():
    rows = noise.seeded([-1, 0, 1, 2**40, 2**62])(torch.empty(5, 4))
    assert len(rows.unique(dim=0)) == 5 and rows.isfinite().all()
