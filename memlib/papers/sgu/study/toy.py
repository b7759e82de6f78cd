"""The toy: a mixture of three modes whose middle is forgotten, in closed form and with small networks."""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from memlib import likelihood, losses, nets, noise, sample, train
from memlib.analytic import GaussianMixture
from memlib.denoiser import Denoiser, pair, score
from memlib.papers.sgu._objective import ForgetLoss, Weight, mix, ones
from memlib.papers.sgu.optima import bounded_optimum, obtuse_optimum, orthogonal_optimum
from memlib.papers.sgu.study.results import Toy

MEANS = torch.tensor([[-2.0, -2.0], [0.0, 0.0], [2.0, 2.0]], dtype=torch.float64)
MIXTURE = GaussianMixture(MEANS, torch.tensor([0.4, 0.2, 0.4], dtype=torch.float64), std=1.0)
RETAIN = GaussianMixture(MEANS[[0, 2]], std=1.0)
FORGET = GaussianMixture(MEANS[[1]], std=1.0)

MAIN = ("standard", "unseen", "orthogonal", "obtuse")
ALPHAS = (0.95, 0.85, 0.7)
GAP_LEVELS = (0.1, 0.5, 1.0, 3.0)
STAY_LEVELS = (0.3, 1.0, 3.0)
SAMPLES = 2000  # of each model that is described
POINTS = 100  # of each side, whose likelihood is computed
_ROWS = 256  # points a step for each arm
_TRACK_LEVEL = 2.0


def tilt(sigma: Tensor) -> Tensor:
    """The weight 1 / (0.1 + sigma^2), (B,) -> (B,): large where the modes part, as in chapter 1."""
    return 1 / (0.1 + sigma**2)


class Arm(NamedTuple):
    """How a toy network is trained: the loss on the forget data (None: none), alpha of eq. 11 and the weight."""

    forget_loss: ForgetLoss | None = None
    alpha: float = 1.0
    weight: Weight = ones


ARMS = {
    "standard": Arm(),
    "unseen": Arm(),
    "orthogonal": Arm(losses.orthogonal, 0.8, tilt),
    "obtuse": Arm(losses.obtuse, 0.9, tilt),
    "bounded": Arm(partial(losses.obtuse_bounded, reach=4.0), 0.9, tilt),
    "released sign": Arm(losses.alignment, 0.9, tilt),
}

OPTIMA: dict[str, Denoiser] = {
    "standard": MIXTURE,
    "unseen": RETAIN,
    "orthogonal": orthogonal_optimum(RETAIN, FORGET, 0.8, tilt),
    "obtuse": obtuse_optimum(RETAIN, FORGET, 0.9, tilt),
}

FORMS: dict[str, Callable[[float], Denoiser]] = {
    "obtuse, w tilted": lambda alpha: obtuse_optimum(RETAIN, FORGET, alpha, tilt),
    "obtuse, w = 1": lambda alpha: obtuse_optimum(RETAIN, FORGET, alpha),
    "bounded, w tilted": lambda alpha: bounded_optimum(RETAIN, FORGET, alpha, 4.0, tilt),
    "orthogonal, w tilted": lambda alpha: orthogonal_optimum(RETAIN, FORGET, alpha, tilt),
}


def describe(denoiser: Denoiser, first: int) -> Tensor:
    """The four numbers of `results.Toy` for a model, (4,); `first` seeds the test points and the samples."""
    start = sample.start(torch.tensor([50.0]), range(1000 * first, 1000 * first + SAMPLES), (2,))
    x = sample.heun(denoiser, start, noise.karras(25, 0.01, 50.0))
    bits = 2 * torch.log(torch.tensor(2.0))
    points = [side.sample(POINTS, torch.Generator().manual_seed(first + 77))[0] for side in (RETAIN, FORGET)]
    end = likelihood.prior(50.0)  # of the model that samples from this noise, whatever was unlearned at the top
    nats = [likelihood.log_likelihood(denoiser, x0, 0.01, 50.0, terminal=end, tol=1e-3).value.mean() for x0 in points]
    far = x.abs().amax(1) > 6
    return torch.stack([*(8 - value / bits for value in nats), _in_the_middle(x).mean(), far.double().mean()])


def closed_form(name: str, first: int) -> Tensor:
    """The description of a closed form at each of `ALPHAS`, (3, 4); of "standard" and "unseen", (1, 4)."""
    if name in OPTIMA:
        return describe(OPTIMA[name], first)[None]
    return torch.stack([describe(FORMS[name](alpha), first) for alpha in ALPHAS])


def trained(seed: int, steps: int, first: int) -> dict[str, Tensor]:
    """Train all arms of one seed as one stack of networks and measure them.

    Arguments:
        seed: of the initial weights, which all arms share, and of every draw of training.
        first: seeds what is measured, the same for all seeds.

    Returns:
        `description` (A, 4); `off arm` (levels,), `cosine arm side` (L,), `stays arm` (3,) and `tracks arm`
        (steps, 40, 2) of the four main arms.
    """
    torch.manual_seed(seed)
    net = nets.Preconditioned(nets.MLP(2, width=48, depth=3), sigma_data=2.0)
    stack = nets.Stack([net] * len(ARMS))
    average = copy.deepcopy(stack)
    for _ in train.fit(
        stack,
        _loss,
        steps,
        lr=4e-3,
        clip=None,
        ema=average,
        decay=0.998 if steps > 1000 else 0.99,
        seed=seed,
        title="toy",
    ):
        pass
    models = dict(zip(ARMS, average.unstack(), strict=True))
    found = {"description": torch.stack([describe(model, first) for model in models.values()])}
    for arm in MAIN:
        found[f"off {arm}"] = distances(models[arm], OPTIMA[arm], first)
        for name, side in {"D_f": FORGET, "D_g": RETAIN}.items():
            values = [_cosine(models[arm], side, sigma, first) for sigma in cosine_levels()]
            found[f"cosine {arm} {name}"] = torch.stack(values)
        found[f"stays {arm}"], found[f"tracks {arm}"] = _ends(models[arm], first)
    return found


def gathered(seeds: Iterable[dict[str, Tensor]], forms: dict[str, Tensor], first: int) -> Toy:
    """Results of `trained` for each of S seeds and of `closed_form` for each name, put together: (S, ...) tensors."""
    runs = list(seeds)
    every = {name: torch.stack([run[name] for run in runs]) for name in runs[0]}
    return Toy(
        arms=tuple(ARMS),
        trained=every["description"],
        alphas=ALPHAS,
        exact=forms,
        gap_levels=GAP_LEVELS,
        off={arm: every[f"off {arm}"] for arm in MAIN},
        adds={arm: distances(RETAIN, OPTIMA[arm], first) for arm in MAIN},
        levels=cosine_levels(),
        exact_cosine={
            arm: torch.stack([_cosine(OPTIMA[arm], FORGET, sigma, first) for sigma in cosine_levels()]) for arm in MAIN
        },
        cosine={(arm, side): every[f"cosine {arm} {side}"] for arm in MAIN for side in ("D_f", "D_g")},
        stay_levels=STAY_LEVELS,
        stays={arm: every[f"stays {arm}"][0] for arm in MAIN},
        tracks={arm: every[f"tracks {arm}"][0] for arm in MAIN},
    )


def cosine_levels() -> Tensor:
    """The levels at which angles are measured, (13,)."""
    return torch.logspace(-1.7, 0.7, 13, dtype=torch.float64)


def distances(a: Denoiser, b: Denoiser, first: int) -> Tensor:
    """Root mean squared distance of two noise predictions along the noised data, one for each of L levels, (L,)."""
    points, values = MIXTURE.sample(2000, torch.Generator().manual_seed(first))[0], []
    for level in GAP_LEVELS:
        x, sigma = noise.add_noise(points, level, noise.seeded(range(2000))), torch.tensor(level)
        values.append(((a(x, sigma) - b(x, sigma)) / level).square().sum(1).mean().sqrt().detach())
    return torch.stack(values)


def _loss(stack: nn.Module, generator: torch.Generator) -> Tensor:
    """The sum of the losses of all arms, each on its own block of the batch: eq. 11, or denoising alone.

    Each point comes twice, with opposite noise. Nothing else is minimised, but at small sigma the noise of the gradient
    nearly cancels; without it, cosines were far from the closed form after ten times as many steps.
    """
    half, part = _ROWS // 2, _ROWS - _ROWS // 4
    drawn = [side.sample(half, generator)[0] for side in (RETAIN, FORGET, MIXTURE)]
    retain, forget, everything = (_twice(points) for points in drawn)
    mixed = torch.cat([retain[:part], forget[part:]])
    x0 = torch.cat([{"standard": everything, "unseen": retain}.get(arm, mixed) for arm in ARMS])
    sigma = _twice(noise.loguniform(half, 0.01, 50.0, generator))  # VE, as in the paper
    one = torch.randn(len(x0) // 2, 2, generator=generator)
    both = pair(stack, x0, sigma.repeat(len(ARMS)), lambda _: torch.stack([one, -one], 1).flatten(0, 1))
    total = torch.zeros(())
    for arm, hat, true in zip(ARMS.values(), *(side.split(_ROWS) for side in both), strict=True):
        kept = losses.denoising(hat, true)
        if arm.forget_loss is None:
            total = total + kept.mean()
        else:
            lost = arm.weight(sigma[part:]) * arm.forget_loss(hat[part:], true[part:])
            total = total + mix(kept[:part], lost, arm.alpha)
    return total


def _twice(rows: Tensor) -> Tensor:
    """Each row twice, one after the other, (2 N, ...)."""
    return rows.repeat_interleave(2, 0)


@torch.no_grad()
def _cosine(model: Denoiser, side: GaussianMixture, sigma: Tensor, first: int) -> Tensor:
    """Mean cosine between the model's score and the true score of one side, at 1,000 noised points of that side, ()."""
    x0 = side.sample(1000, torch.Generator().manual_seed(first + 5))[0]
    x = noise.add_noise(x0, sigma, noise.seeded(range(1000)))
    return cosine_similarity(score(model, x, sigma), score(side, x, sigma)).mean()


def _ends(model: Denoiser, first: int) -> tuple[Tensor, Tensor]:
    """Fractions (3,) of noised forget points that end in the middle, and forty paths (16, 40, 2) from sigma = 2."""
    x0, stays = FORGET.sample(1000, torch.Generator().manual_seed(first + 6))[0], []
    for sigma in STAY_LEVELS:
        x = noise.add_noise(x0, sigma, noise.seeded(range(1000)))
        stays.append(_in_the_middle(sample.heun(model, x, noise.karras(15, 0.01, sigma))).mean())
    x = noise.add_noise(x0[:40], _TRACK_LEVEL, noise.seeded(range(40)))
    path = sample.heun_path(model, x, noise.karras(15, 0.01, _TRACK_LEVEL))
    return torch.stack(stays), torch.stack([x, *path])


def _in_the_middle(x: Tensor) -> Tensor:
    """Whether each sample (B, 2) lies nearest to the forgotten mode, as numbers (B,)."""
    return (torch.cdist(x, MEANS.to(x)).argmin(1) == 1).double()
