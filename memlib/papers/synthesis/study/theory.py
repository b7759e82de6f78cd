"""The theory of appendices A to C, measured: mean embeddings (R1), the Hoeffding bound (R3), the variational one (R13).

R1 and R13 are about laws in closed form and take no images. R3 takes the pipelines of the study: classifiers of their
synthetic sets, and fresh synthetic sets of the same generators.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlib import losses, metrics, nets, noise, train
from memlib.analytic import GaussianMixture
from memlib.denoiser import pair
from memlib.likelihood import variational_bound
from memlib.papers.synthesis import bounds, chain, classifiers, embeddings
from memlib.papers.synthesis.classifiers import Recipe
from memlib.papers.synthesis.embeddings import Normal
from memlib.papers.synthesis.pool import MISLABELLED
from memlib.papers.synthesis.study import pipelines
from memlib.papers.synthesis.study.measures import difference
from memlib.papers.synthesis.study.pipelines import Part
from memlib.papers.synthesis.study.theory_results import Bound, Gap, Kernel
from memlib.papers.synthesis.study.world import World, coders
from memlib.papers.synthesis.synthetic import Published, publish
from memlib.random import keyed, noise_from
from memlib.run import Run

# R1: two laws on a line, and two of equal mean that differ in spread alone.

TARGET = Normal(torch.tensor([0.0], dtype=torch.float64), 1.0)
SYNTHETIC = Normal(torch.tensor([1.0], dtype=torch.float64), 0.6)
NARROW = Normal(torch.tensor([0.0], dtype=torch.float64), 0.5)
BANDWIDTH = 1.0
_LINE = torch.linspace(-12, 12, 2401, dtype=torch.float64)  # of quadrature
_SHOWN = torch.linspace(-4, 4, 161, dtype=torch.float64)
_CENTRES = torch.linspace(-4, 4, 33, dtype=torch.float64)[:, None]  # of functions of norm 1


def kernel(draws: int, points: int, seed: int) -> Kernel:
    """R1: `metrics.mmd2` of `draws` pairs of fresh samples of `points` each, and the supremum of eq. 17.

    A quarter of the draws serves the biased estimate and the two laws of equal mean.
    """
    exact = embeddings.mmd2(TARGET, SYNTHETIC, BANDWIDTH)
    estimates, biased, linear, gaussian = [], [], [], []
    for draw in range(draws):
        generator = keyed(seed, draw)
        a, b, c = (law.sample(points, generator) for law in (TARGET, SYNTHETIC, NARROW))
        estimates.append(metrics.mmd2(a, b, BANDWIDTH))
        if draw >= draws // 4:
            continue
        biased.append(metrics.mmd2(a, b, BANDWIDTH, unbiased=False))
        linear.append(metrics.kid(a, c, degree=1, gamma=1.0, coef=0.0))
        gaussian.append(metrics.mmd2(a, c, BANDWIDTH))
    distance = math.sqrt(exact)
    apart = torch.trapezoid(
        (_density(TARGET, _LINE) - _density(SYNTHETIC, _LINE))
        * embeddings.witness(TARGET, SYNTHETIC, _LINE[:, None], BANDWIDTH),
        _LINE,
    )
    best, others = _suprema(keyed(seed, draws))
    return Kernel(
        exact=exact,
        estimates=_column(estimates),
        biased=_column(biased),
        grid=_SHOWN,
        densities=torch.stack([_density(law, _SHOWN) for law in (TARGET, SYNTHETIC)]),
        witness=embeddings.witness(TARGET, SYNTHETIC, _SHOWN[:, None], BANDWIDTH),
        reached=float(apart) / distance,
        best=best / distance,
        others=others / distance,
        equal_means={"linear kernel": _column(linear), "Gaussian kernel": _column(gaussian)},
    )


def _density(law: Normal, x: Tensor) -> Tensor:
    """(G,) for points (G,) of a line."""
    return torch.exp(-0.5 * ((x - law.mean) / law.std) ** 2) / (law.std * math.sqrt(2 * math.pi))


def _suprema(generator: torch.Generator, count: int = 1000) -> tuple[float, Tensor]:
    """E_T f - E_S f for f = sum_i a_i k(z_i, .) with a' K a = 1: its largest value, and those of random a, (count,).

    Both expectations are by quadrature. The largest is that of a = K^-1 g / sqrt(g' K^-1 g).
    """
    values = torch.exp(-0.5 * ((_CENTRES - _LINE) / BANDWIDTH) ** 2)  # (33, G)
    gains = torch.trapezoid(values * (_density(TARGET, _LINE) - _density(SYNTHETIC, _LINE)), _LINE)
    gram = embeddings.gram(_CENTRES, BANDWIDTH)
    solved = torch.linalg.pinv(gram, hermitian=True, rtol=1e-10) @ gains
    random = torch.randn(count, len(gram), dtype=torch.float64, generator=generator)
    norms = (random @ gram * random).sum(1).sqrt()
    return math.sqrt(float(gains @ solved)), random @ gains / norms


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# R3: what classifiers of synthetic sets lose on fresh synthetic images and on real ones.

DELTA = 0.05  # probability that the bound is allowed to fail


@dataclass(frozen=True)
class Small:
    """The small class: linear rules on some principal components, with weights of some levels."""

    features: int
    levels: int
    draws: int  # sets drawn for each pipeline

    @property
    def log_size(self) -> float:
        """log |F|, in nats."""
        return (self.features + 1) * math.log(self.levels)


@dataclass(frozen=True)
class Losses:
    """Losses of the classifiers of E pipelines, by loss; cells of images that a pipeline has not are 0.

    `train` (E, N) on the published image of each member, `fresh` (E, N) the mean over fresh ones of the same member,
    `real` (E, M) on test images. `largest` (draws,) as in `Gap`.
    """

    train: dict[str, Tensor]
    fresh: dict[str, Tensor]
    real: dict[str, Tensor]
    weights: int
    small: Small
    largest: Tensor


def measured(part: Part, strength: float, recipe: Recipe, fresh: int, small: Small, run: Run) -> Losses:
    """R3 for some pipelines: classifiers of their synthetic sets, on `fresh` further images of each member."""
    stack, world = pipelines.stack_of(part, run), part.world
    options = {"strength": strength, "guidance": part.guidance, "steps": part.steps}
    made = publish(stack, world.pool, part.inside, seed=part.seed, **options)
    again = publish(stack, world.pool, part.inside, times=fresh, seed=part.seed + 2, **options)
    weights = torch.ones(made.labels.shape, device=made.labels.device)
    seed = part.seed * 1_000 + part.rows[-1]
    (judge,) = classifiers.fit(made.images, made.labels, weights, world.pool.classes, part.network.spread, recipe, seed)
    test = classifiers.logits(judge, world.test)
    return Losses(
        train=_by_member(judge, made, len(world.pool.images)),
        fresh=_by_member(judge, again, len(world.pool.images)),
        real={name: one.cpu() for name, one in _losses(test, world.test_labels.expand(len(test), -1)).items()},
        weights=sum(one[0].numel() for one in judge.weights),
        small=small,
        largest=_largest(part, again, int(part.inside[0].sum()), small),
    )


def gap(world: World, parts: Sequence[Losses]) -> Gap:
    """R3, from its parts. Mislabelled images are not judged: on them real and synthetic labels differ by design."""
    pool, small = world.pool, parts[0].small
    counted = (pool.inside & (pool.kind != MISLABELLED)).cpu()
    gaps, errors = {}, {}
    for name in parts[0].train:
        on = [torch.cat([getattr(one, where)[name] for one in parts]) for where in ("train", "fresh", "real")]
        seen, fresh, real = on
        mean_seen, mean_fresh = ((one * counted).sum(1, keepdim=True) / counted.sum(1, True) for one in (seen, fresh))
        everywhere = torch.ones_like(real, dtype=torch.bool)
        gaps[name] = {
            "train to fresh synthetic": difference(fresh, seen, counted),
            "train to real": difference(real, mean_seen.expand_as(real), everywhere),
            "fresh synthetic to real": difference(real, mean_fresh.expand_as(real), everywhere),
        }
        errors[name] = {"train": float(mean_seen.mean()), "fresh synthetic": float(mean_fresh.mean())}
        errors[name]["real"] = float(real.mean())
    examples, log_size = int(counted.sum(1).min()), bounds.log_size_of(parts[0].weights)
    size = int(pool.inside[0].sum())
    return Gap(
        gaps=gaps,
        errors=errors,
        weights=parts[0].weights,
        examples=examples,
        delta=DELTA,
        printed=bounds.hoeffding(log_size, examples, DELTA, printed=True),
        sharp=bounds.hoeffding(log_size, examples, DELTA),
        rules=small.levels ** (small.features + 1),
        small_printed=bounds.hoeffding(small.log_size, size, DELTA, printed=True),
        small_sharp=bounds.hoeffding(small.log_size, size, DELTA),
        largest=torch.cat([one.largest for one in parts]),
    )


def _losses(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Two losses in [0, 1], (E, M) each: mistakes, and the cross-entropy through a sigmoid, as appendix B has it."""
    entropy = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
    return {"0/1": (logits.argmax(-1) != labels).double(), "squashed": entropy.double().sigmoid()}


@torch.no_grad()
def _by_member(judge: nets.Stack, published: Published, count: int) -> dict[str, Tensor]:
    """The mean loss on the published images of each member, (E, N)."""
    logits = judge(published.images.flatten(0, 1), 0.0).unflatten(0, published.labels.shape)
    found = {}
    for name, values in _losses(logits, published.labels).items():
        blank = values.new_zeros(len(values), count)
        total, times = (blank.scatter_add(1, published.members, one) for one in (values, torch.ones_like(values)))
        found[name] = (total / times.clamp_min(1)).cpu()
    return found


def _largest(part: Part, published: Published, size: int, small: Small) -> Tensor:
    """The largest gaps of the small class; each pipeline's fresh images are a law, whose labels are cut into halves."""
    encode, _ = coders(part.world)
    reference = encode(part.world.reference).flatten(1).double()
    _, scale, axes = torch.linalg.svd(reference - reference.mean(0), full_matrices=False)
    deviation = scale[: small.features] / math.sqrt(len(reference))
    rules = bounds.linear_rules(small.features, small.levels).to(reference)
    found = []
    for row, images, labels in zip(part.rows, published.images, published.labels, strict=True):
        features = (images.flatten(1).double() - reference.mean(0)) @ axes[: small.features].T / (2 * deviation)
        wrong = bounds.mistakes(rules, features, labels >= part.world.pool.classes / 2)
        found.append(bounds.largest_gaps(wrong, size, small.draws, keyed(part.seed, row)))
    return torch.cat(found)


# R13: a mixture on a line, whose density and denoiser are known.

MIXTURE = GaussianMixture(
    torch.tensor([[-2.0], [0.4], [2.0]], dtype=torch.float64), torch.tensor([0.3, 0.5, 0.2]),
    std=torch.tensor([0.3, 0.6, 0.2]),
)  # fmt: skip
SPREAD = 1.6  # of the mixture
LOWEST, HIGHEST = 0.02, 20.0  # levels of the grids
_CHAIN, _POINTS = (32, 0.05), 1000  # levels, the lowest of them, and points where the chain of a network is integrated
_DRAWS = 10  # of the noise there


def bound(levels: Sequence[int], points: int, networks: int, steps: int, seed: int) -> Bound:
    """R13: with the exact denoiser on `points` fresh points by T, and for networks with 200 fresh points each."""
    x0, _ = MIXTURE.sample(points, keyed(seed, 0))
    exact = MIXTURE.log_prob(x0)
    gaps = [
        variational_bound(MIXTURE, x0, noise.ve(count, LOWEST, HIGHEST), noise_from(keyed(seed, 1 + k))).value + exact
        for k, count in enumerate(levels)
    ]
    stack = _networks(networks, steps, seed)
    own, _ = MIXTURE.sample(200 * networks, keyed(seed, 100))
    finest = min(256, max(levels))
    fine = variational_bound(stack, own.float(), noise.ve(finest, LOWEST, HIGHEST), noise_from(keyed(seed, 101)))
    grid = noise.ve(_CHAIN[0], _CHAIN[1], HIGHEST)
    coarse = variational_bound(stack, own.float(), grid, noise_from(keyed(seed, 102)), _DRAWS)
    each = zip(stack.unstack(), own.float().split(200), strict=True)
    density = torch.cat([chain.log_density(net, rows, grid, SPREAD, _POINTS) for net, rows in each])
    return Bound(
        levels=tuple(levels),
        gaps=torch.stack(gaps),
        networks=(fine.value + MIXTURE.log_prob(own)).view(networks, -1).mean(1),
        slack=(coarse.value + density).view(networks, -1).mean(1),
        network_levels=(finest, _CHAIN[0]),
    )


def _networks(count: int, steps: int, seed: int, size: int = 2000, batch: int = 128) -> nets.Stack:
    """Small denoisers, each trained on its own `size` points of the mixture."""
    sets = MIXTURE.sample(count * size, keyed(seed, 200))[0].float().view(count, size, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stack = nets.Stack([nets.Preconditioned(nets.MLP(1, 64, 2), SPREAD) for _ in range(count)]).float()

    def loss(stack: nn.Module, generator: torch.Generator) -> Tensor:
        rows = torch.randint(size, (count, batch, 1), generator=generator)
        x0 = sets.gather(1, rows).flatten(0, 1)
        sigma = noise.loguniform(len(x0), LOWEST, HIGHEST, generator)
        weight = (sigma**2 + SPREAD**2) / SPREAD**2
        apart = losses.denoising(*pair(stack, x0, sigma, noise_from(generator)), weight)
        return apart.unflatten(0, (count, -1)).mean(1).sum()

    train.train(stack, loss, steps, lr=3e-3, clip=None, seed=seed, title="denoisers on a line")
    return stack.eval().requires_grad_(False)
