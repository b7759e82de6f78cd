"""G5: four networks for each seed, alike but for their loss: what they generate, and what they find likely."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from memlib import losses, train
from memlib.analytic import GaussianMixture
from memlib.denoiser import Denoiser, pair
from memlib.likelihood import bits_per_dim, log_likelihood, prior
from memlib.noise import karras, loguniform, noise_from
from memlib.papers.gaussian.closed_forms import obtuse_optimum
from memlib.papers.gaussian.study.settings import Settings
from memlib.papers.gaussian.toys import MIDDLE, forget, means, mixture, retain, toy_network, unlearning_weight
from memlib.random import to_device
from memlib.run import Run
from memlib.sample import heun, start

UNLEARNED = ("orthogonal", "obtuse")  # the arms that see the forgotten data, and unlearn them
ARMS = ("standard", "unseen", *UNLEARNED)  # all of the data; the retained data alone
LOW, HIGH = 0.01, 50.0  # range of noise levels, of training, sampling and likelihood
FRAME = 6.0  # a sample with a larger coordinate is thrown out: it lies far from every mode
ALPHAS = (0.9, 0.5, 0.3)  # where the exact optimum of the obtuse loss is measured
FRESH = 1234  # seed of the points whose likelihood is measured
SHOWN = 2000  # samples that are kept to be drawn


@dataclass(frozen=True)
class Measured:
    """One model: negative log-likelihoods in nats per point, and fractions of its samples."""

    retained: float  # NLL of fresh points of the retained modes
    forgotten: float  # NLL of fresh points of the middle mode
    middle: float  # fraction of samples that are nearest to the middle mode
    thrown: float  # fraction of samples beyond FRAME


@dataclass(frozen=True)
class Unlearning:
    """What each arm became, run by run, beside what closed forms say."""

    alpha: float
    arms: dict[str, list[Measured]]  # ARMS, one entry a seed; entry i of all arms shares its seed
    exact: dict[str, Measured]  # the exact denoisers that "standard" and "unseen" approach
    optima: dict[float, Measured]  # the exact optimum of the obtuse loss, by alpha
    shown: dict[str, Tensor]  # samples of the first seed, at most (SHOWN, 2), float32

    def column(self, arm: str, name: str) -> Tensor:
        """One quantity of an arm over its K seeds, (K,), such as "middle"."""
        return torch.tensor([getattr(one, name) for one in self.arms[arm]], dtype=torch.float64)


def bits(nats: float | Tensor) -> float:
    """The NLL of a point (d = 2), a scalar, in bits per dimension plus 8, the unit of code for uncentred images."""
    return float(bits_per_dim(-torch.as_tensor(nats, dtype=torch.float64), dims=2, bits=8, low=0.0, high=1.0))


def loss(
    net: nn.Module,
    generator: torch.Generator,
    seen: GaussianMixture,
    forgotten: GaussianMixture | None,
    term: Callable[[Tensor, Tensor], Tensor],
    alpha: float,
    batch: int,
) -> Tensor:
    """The training loss on a fresh batch, a scalar. SGU eq. 8 to 11.

    Arguments:
        net: predicts the noise of points (B, 2).
        generator: of all that is random.
        seen: the data to be learnt.
        forgotten: the data to be unlearnt; None leaves the denoising loss alone.
        term: the unlearning loss of predicted and true noise, such as `losses.obtuse`.
        alpha: fraction of the denoising loss.
        batch: points of each kind.
    """
    device = next(net.parameters()).device
    sigma, noise = to_device(loguniform(batch, LOW, HIGH, generator), device), noise_from(generator)
    good = losses.denoising(*pair(net, seen.sample(batch, generator)[0], sigma, noise))
    if forgotten is None:
        return good.mean()
    bad = term(*pair(net, forgotten.sample(batch, generator)[0], sigma, noise))
    return (alpha * good + (1 - alpha) * unlearning_weight(sigma) * bad).mean()


def fit(
    net: nn.Module, arm: str, steps: int, alpha: float, batch: int, rate: float, seed: int, device: torch.device
) -> nn.Module:
    """Train `net` as one arm and return the running average of its parameters."""
    net = net.to(device)
    average = deepcopy(net)
    step = partial(
        loss,
        seen=mixture(device) if arm == "standard" else retain(device),
        forgotten=forget(device) if arm in UNLEARNED else None,
        term=losses.obtuse if arm == "obtuse" else losses.orthogonal,
        alpha=alpha,
        batch=batch,
    )
    title = f"{arm} {seed}"
    for _ in train.fit(net, step, steps, lr=rate, ema=average, decay=0.99, seed=seed, precision="fp32", title=title):
        pass
    return average


def network(arm: str, seed: int, width: int, *training: Any) -> dict[str, Tensor]:
    """The parameters, by name and of any shape, of a network of this arm and seed, trained from nothing.

    `training` is steps, alpha, batch, rate and device, as `fit` takes them.
    """
    torch.manual_seed(seed)
    steps, alpha, batch, rate, device = training
    return dict(fit(toy_network(width), arm, steps, alpha, batch, rate, seed, device).state_dict())


def inputs(settings: Settings, run: Run, arm: str, seed: int) -> tuple[Any, ...]:
    """What `network` is given: all that a trained network depends on, and no more."""
    alpha = settings.alpha if arm in UNLEARNED else 1.0  # the others do not use it
    return arm, seed, settings.width, settings.train_steps, alpha, settings.batch, settings.learning_rate, run.device


def load(state: dict[str, Tensor], width: int, device: torch.device) -> nn.Module:
    """A frozen network of points (B, 2) with these parameters."""
    net = toy_network(width).to(device)
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def first(settings: Settings, run: Run, arm: str) -> nn.Module:
    """The network of an arm at the first seed, trained or read from the cache."""
    state = run.cached("network", network, *inputs(settings, run, arm, run.seed))
    return load(state, settings.width, run.device)


def measured(state: dict[str, Tensor], width: int, *sizes: Any) -> tuple[Measured, Tensor]:
    """`judge` for the network with these parameters: its measures, and samples (N, 2) to be drawn."""
    n_samples, n_tested, device = sizes
    return judge(load(state, width, device), n_samples, n_tested, device)


def judge(
    denoiser: Denoiser,
    n_samples: int,
    n_tested: int,
    device: torch.device,
    *,
    levels: int = 30,
    tol: float = 1e-5,
) -> tuple[Measured, Tensor]:
    """Sample a denoiser and measure its likelihoods; also its first samples, at most (SHOWN, 2), to be drawn.

    Arguments:
        denoiser: of points (B, 2), on `device`.
        n_samples: samples; sample i starts from the same noise for every model.
        n_tested: fresh points of the retained and of the forgotten modes, the same for every model.
        levels: noise levels of the sampler.
        tol: of the likelihood, `memlib.likelihood.log_likelihood`.
    """
    grid = karras(levels, LOW, HIGH)
    x = heun(denoiser, start(grid, range(n_samples), (2,), device=device), grid)
    generator = torch.Generator().manual_seed(FRESH)
    tests = [data.sample(n_tested, generator)[0] for data in (retain(device), forget(device))]
    # Of the model that samples from N(0, HIGH^2 I): an unlearned denoiser need not be that of any data.
    nll = [float(-log_likelihood(denoiser, x0, LOW, HIGH, terminal=prior(HIGH), tol=tol).value.mean()) for x0 in tests]
    middle = float((torch.cdist(x, means(device)).argmin(1) == MIDDLE).double().mean())
    thrown = float((x.abs().amax(1) > FRAME).double().mean())
    return Measured(nll[0], nll[1], middle, thrown), x[:SHOWN].float().cpu()


def closed_forms(
    n_samples: int, n_tested: int, device: torch.device
) -> tuple[dict[str, Measured], dict[float, Measured]]:
    """`judge` for the exact "standard" and "unseen" denoisers, and for the obtuse optimum at each of ALPHAS."""
    whole, kept, gone = mixture(device), retain(device), forget(device)
    sizes = n_samples, n_tested, device
    exact = {name: judge(one, *sizes)[0] for name, one in (("standard", whole), ("unseen", kept))}
    optima = {}
    for alpha in ALPHAS:
        one = obtuse_optimum(kept, gone, alpha, unlearning_weight)
        optima[alpha] = judge(one, *sizes, levels=60, tol=1e-3)[0]
    return exact, optima


def measure(settings: Settings, run: Run) -> Unlearning:
    """Train the networks of all arms and seeds, measure each, and the closed forms beside them."""
    keys = [(arm, run.seed + i) for arm in ARMS for i in range(settings.n_seeds)]
    states = run.each("network", network, [inputs(settings, run, *key) for key in keys])
    sizes = settings.n_samples, settings.n_tested, run.device
    found = {
        key: run.cached("measured", measured, state, settings.width, *sizes)
        for key, state in zip(keys, states, strict=True)
    }
    exact, optima = run.cached("closed-forms", closed_forms, *sizes)
    return Unlearning(
        alpha=settings.alpha,
        arms={arm: [found[arm, run.seed + i][0] for i in range(settings.n_seeds)] for arm in ARMS},
        exact=exact,
        optima=optima,
        shown={arm: found[arm, run.seed][1] for arm in ARMS},
    )
