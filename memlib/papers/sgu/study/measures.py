"""What is measured on an image network: samples, likelihoods, inpainting, reconstruction, membership.

Every function takes a task and a network and is a pure function of them and of seeds.
"""

import math

import torch
from torch import Tensor, nn

from memlib import features, inpaint, likelihood, losses, metrics, noise, sample
from memlib.denoiser import Denoiser, pair
from memlib.papers.sgu.study import arms
from memlib.papers.sgu.study.results import SIDES, Answers, Judge
from memlib.papers.sgu.study.tasks import Task
from memlib.run import Run

MASKS = ("upper half", "box", "random")
TIMES = (0.02, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)  # of the VP equation; the first is the paper's
_DENSITY_LEVEL = 0.05  # grey levels and blank borders have no density of their own: this much noise is added
_SHOWN = 24  # samples that are kept to be looked at
_FILLED = 120  # test images of each side that are inpainted
_RESTORED = 200  # test images of each side that are noised and denoised


def judged(task: Task, process: str, n_levels: int, n_samples: int, seed: int, net: nn.Module) -> dict[str, Tensor]:
    """Sample a network and let the judge look at the samples.

    Returns:
        The fields of `results.Judged`, each (), or (K,) for `labels`; and `images` (24, C, H, W), the first samples.
    """
    levels, names = arms.grid(process, n_levels), range(n_samples * seed, n_samples * (seed + 1))
    blocks = [names[i : i + 1000] for i in range(0, n_samples, 1000)]
    like = {"dtype": task.z.dtype, "device": task.z.device}
    starts = (sample.start(levels, block, task.z.shape[1:], **like) for block in blocks)
    z = torch.cat([sample.ancestral(net, x, levels) for x in starts])
    images = task.decode(z)
    seen = task.judge.embed(images)
    bad = task.found(seen)
    distance, precision, recall = _quality(task.features[~task.test_forget], seen[~bad][: n_samples // 2])
    other = torch.zeros(()) if task.beside is None else says(task.beside, images).sum()
    return {
        "found": bad.sum().cpu(),
        "sure": (bad & task.sure(seen)).sum().cpu(),
        "labels": torch.bincount(task.answers(seen), minlength=len(task.names)).cpu(),
        "beside": other.long().cpu(),
        "noisy": task.noisy(images).sum().cpu(),
        "frechet": torch.tensor(distance),
        "precision": torch.tensor(precision),
        "recall": torch.tensor(recall),
        "images": images[:_SHOWN].cpu().half(),
    }


def says(judge: features.ClassifierFeatures, images: Tensor) -> Tensor:
    """Whether the judge of a label that is 0 or 1 answers 1, (N, C, H, W) -> (N,)."""
    return judge.logits(images).argmax(1) == 1


def checked(task: Task) -> Judge:
    """How the judges of a task fare on real test images, and what `Task.noisy` makes of noise."""
    bad, lost, z = task.found(task.features), task.test_forget, task.encode(task.test)
    noised = task.decode(noise.add_noise(z, 1.0, noise.seeded(range(len(z)))))
    right = says(task.beside, task.test) == task.test_beside if task.beside is not None else torch.tensor([math.nan])
    return Judge(
        right=_fraction(task.answers(task.features) == task.test_labels),
        in_retained=_fraction(bad[~lost]),
        in_forgotten=_fraction(bad[lost]),
        sure=_fraction((bad & task.sure(task.features))[lost]),
        beside=_fraction(right),
        noisy=_fraction(task.noisy(task.decode(z))),
        noised=_fraction(task.noisy(noised)),
    )


def tuned(
    run: Run,
    task: Task,
    plan: arms.Plan,
    origin: dict[str, Tensor] | None,
    n_levels: int,
    n_samples: int,
    n_likely: int = 0,
) -> dict[str, Tensor]:
    """Fine-tune the network with weights `origin`, or train one from scratch; then `judged`, images (24, C, H, W).

    With `n_likely` also the mean `bits` (n_likely,) of each side, (), by the side's name.
    """
    weights = arms.trained(run, plan, task.z, task.forget, task.sigma_star, origin)
    net = arms.loaded(task.z, plan, weights)
    found = judged(task, plan.process, n_levels, n_samples, plan.seed, net)
    return found | ({side: bits(task, side, net, n_likely).mean() for side in SIDES} if n_likely else {})


def bits(task: Task, side: str, net: nn.Module, n: int, probes: int | None = 4) -> Tensor:
    """Negative log-likelihood of the first n noised test images of a side, in bits per dimension, (n,).

    The trace is Hutchinson's from `probes` vectors; None takes the exact one, a gradient for each coordinate.
    """
    z = task.encode(_test(task, side)[0][:n])
    x = noise.add_noise(z, _DENSITY_LEVEL, noise.seeded(range(len(z))))
    end = likelihood.prior(20.0)  # of the model that samples from this noise, whatever was unlearned at the top
    found = [likelihood.log_likelihood(net, part, _DENSITY_LEVEL, 20.0, probes, end, tol=1e-3) for part in x.split(100)]
    return torch.cat([likelihood.bits_per_dim(one.value, z[0].numel()) for one in found]).double().cpu()


def refilled(
    task: Task, process: str, n_levels: int, n_fills: int, seed: int, mask: str, net: nn.Module
) -> dict[str, Tensor]:
    """Hide a part of test images and let the network fill it in, several times each.

    Returns:
        `same side` and `distance side` (), means over images and fillings, as in `results.Answers`; and `images`
        (12, C, H, W), fillings of forgotten images.
    """
    levels, origin = arms.grid(process, n_levels), task.decode(torch.zeros_like(task.z[:1]))
    out: dict[str, Tensor] = {}
    for side in SIDES:
        x, labels, real = (part[:_FILLED].repeat_interleave(n_fills, 0) for part in _test(task, side))
        own = noise.seeded(range(len(x) * seed, len(x) * (seed + 1)))
        there = hidden(mask, x.shape[-1], len(x)).to(x.device)
        filled = inpaint.inpaint(_on_pixels(task, net), x - origin, there, levels, noise=own) + origin
        out[f"same {side}"], out[f"distance {side}"] = _compared(task, filled, labels, real)
        out["images"] = filled[::n_fills][:12].cpu().half()
    return out


def hidden(mask: str, size: int, n: int) -> Tensor:
    """A mask by its name, True where a pixel is hidden, (1, size, size) or (n, 1, size, size)."""
    if mask == "upper half":
        return inpaint.upper_half(size)
    if mask == "box":
        return inpaint.central_box(size, 0.6)
    return inpaint.scattered(size, 0.3, n, torch.Generator().manual_seed(0))


def restored(
    task: Task, process: str, n_levels: int, seed: int, levels: tuple[float, ...], net: nn.Module
) -> list[dict[str, Tensor]]:
    """Noise test images to each level and denoise them: `same side` and `distance side` (), as in `results`."""
    return [_restored(task, process, n_levels, seed, sigma, net) for sigma in levels]


def _restored(task: Task, process: str, n_levels: int, seed: int, sigma: float, net: nn.Module) -> dict[str, Tensor]:
    out = {}
    for side in SIDES:
        x, labels, real = (part[:_RESTORED] for part in _test(task, side))
        own = noise.seeded(range(len(x) * seed, len(x) * (seed + 1)))
        back = task.decode(inpaint.reconstruct(net, task.encode(x), sigma, arms.grid(process, n_levels), own))
        out[f"same {side}"], out[f"distance {side}"] = _compared(task, back, labels, real)
    return out


def sigmas() -> tuple[float, ...]:
    """The levels of `TIMES`."""
    return tuple(noise.vp_sigma(torch.tensor(TIMES, dtype=torch.float64)).tolist())


def gathered(runs: list[dict[str, Tensor]], side: str) -> Answers:
    """One value for each of S seeds, (S,), from `refilled` or `restored` of each."""
    return Answers(**{name: torch.stack([run[f"{name} {side}"] for run in runs]) for name in ("same", "distance")})


def member_auc(task: Task, net: nn.Module) -> tuple[float, tuple[float, float]]:
    """How well the denoising error tells forget images of the training set from test images of the same labels.

    The area under the ROC curve with its 95 % interval; 1/2 is a coin toss.
    """
    inside, outside = task.decode(task.z[task.forget]), task.test[task.test_forget]
    return metrics.auc(-_error(task, net, inside), -_error(task, net, outside))


def _quality(real: Tensor, good: Tensor) -> tuple[float, float, float]:
    """Frechet distance, precision and recall of features (N, D) and (M, D); nan where hardly a sample is left."""
    if len(good) < 5:
        return math.nan, math.nan, math.nan
    quality = metrics.precision_recall(real, good[: len(real)])
    return metrics.frechet_distance(real, good), quality.precision.rate, quality.recall.rate


def _test(task: Task, side: str) -> tuple[Tensor, Tensor, Tensor]:
    """Test images of a side, their labels and the judge's features of them."""
    rows = task.test_forget if side == "D_f" else ~task.test_forget
    return task.test[rows], task.test_labels[rows], task.features[rows]


def _compared(task: Task, made: Tensor, labels: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The fraction of images that keep their class, and the mean distance of features, each ()."""
    seen = task.judge.embed(made)
    return (task.answers(seen) == labels).double().mean().cpu(), (seen - real).norm(dim=1).double().mean().cpu()


def _fraction(hits: Tensor) -> float:
    return float(hits.double().mean())


def _on_pixels(task: Task, net: nn.Module) -> Denoiser:
    """A network on coordinates as a denoiser of centred pixels: what its coordinates lack goes to the mean."""
    origin = task.decode(torch.zeros_like(task.z[:1]))
    return lambda x, sigma: task.decode(net(task.encode(x + origin), sigma)) - origin


def _error(task: Task, net: nn.Module, images: Tensor, sigma: float = 0.5, repeats: int = 4) -> Tensor:
    """Denoising error of each image at sigma, mean over draws of noise, (n,)."""
    z = task.encode(images).repeat(repeats, *[1] * (task.z.ndim - 1))
    with torch.no_grad():
        both = pair(net, z, sigma, noise.seeded(range(len(z))))
    return losses.denoising(*both).view(repeats, -1).mean(0)
