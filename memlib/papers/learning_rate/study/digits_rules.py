"""What counts as reproduced on digits: L7 and its part on quality, and what they rest on."""

import math

import torch
from torch import Tensor

from memlib import metrics
from memlib.claim import Claim
from memlib.papers.learning_rate.study.results import Digits, Looks

COPIED, LOSS, HELD_OUT, FRECHET = range(4)
_LOST = math.log(1.1)  # of a Frechet distance, what still counts as equal


def l7(results: Digits) -> Claim:
    r"""Effective model memorization (EMM): the largest set of which 90 % of the samples are copies, interpolated in
    $\log n$. Some models choose the peak, the rate of Adam with the largest mean EMM; others test it. *Reproduced*: EMM
    at the peak exceeds that at the largest rate (interval of the paired difference of $\log_2$ EMM above 0), and at
    *equal training loss* the largest rate copies less: the copied fraction at the peak, read along training where its
    loss is that of the largest rate at the end, exceeds that of the largest rate (interval above 0; 0 for a model whose
    losses do not meet). *Trend only*: the
    first alone, so that copying is less because the loss is larger. *Not reproduced*: otherwise. *Needs data or scale*:
    fewer than three models test, or at the peak not even the smallest set is memorized on average.
    """
    sizes = emm(results)[:, results.choosing :]
    peak = peak_rate(results)
    if sizes.shape[1] < 3:
        fell = matched = (-math.inf, math.inf)
    else:
        fell, matched = metrics.mean_interval(sizes[peak] - sizes[-1]), metrics.mean_interval(at_equal_loss(results))
    verdict = "not reproduced" if fell[0] <= 0 else "reproduced" if matched[0] > 0 else "trend only"
    able = sizes.shape[1] > 2 and float(sizes[peak].mean()) >= math.log2(results.sizes[0])
    means = zip(results.rates, 2 ** sizes.mean(1), strict=True)
    return Claim(
        "L7",
        verdict if able else "needs data or scale",
        figure={f"EMM, eta = {rate:g}": size for rate, size in means}
        | {"copied at equal training loss, peak minus largest rate": at_equal_loss(results).mean()},
        interval=fell if sizes.shape[1] > 2 else None,
        n=sizes.shape[1],
        text="log2 EMM on digits at the peak minus at the largest rate of Adam, models that did not choose the peak",
    )


def l7b(results: Digits) -> Claim:
    r"""Quality at equal copying. The largest rate at its end is set beside the peak's rate stopped early, at its last
    look with no more copies (or no more than one in twenty). *Reproduced*: the largest rate costs at most a tenth of
    the squared Frechet distance to held-out images (upper end of the interval of the paired log ratio below
    $\log 1.1$). *Trend only*: neither this nor the next. *Not reproduced*: stopping early is better (lower end above
    0). *Needs data or scale*: fewer than three models test.
    """
    ratio = cost(results)
    interval = metrics.mean_interval(ratio) if len(ratio) > 2 else (-math.inf, math.inf)
    verdict = "reproduced" if interval[1] < _LOST else "not reproduced" if interval[0] > 0 else "trend only"
    return Claim(
        "L7b",
        verdict if len(ratio) > 2 else "needs data or scale",
        figure=ratio.mean().exp(),
        interval=[math.exp(end) for end in interval] if len(ratio) > 2 else None,
        n=len(ratio),
        text="squared Frechet distance at the largest rate over that of stopping early at the peak, at equal copying",
    )


def emm(results: Digits) -> Tensor:
    """log2 of the largest set of which 90 % of samples are copies, (E, S), interpolated between sizes.

    Half the smallest size where none is, and the largest size where all are.
    """
    logs = torch.tensor(results.sizes).double().log2()
    found = torch.full(results.copied.shape[1:], float(logs[0]) - 1).double()
    going = torch.ones_like(found, dtype=torch.bool)  # all smaller sizes were memorized
    before = torch.ones_like(found)
    for i, share in enumerate(results.copied):
        enough = share >= 0.9
        if i:
            part = ((before - 0.9) / (before - share).clamp_min(1e-9)).clamp(0, 1)
            found = torch.where(going & ~enough, logs[i - 1] + part * (logs[i] - logs[i - 1]), found)
        found = torch.where(going & enough, logs[i], found)
        going, before = going & enough, share
    return found


def peak_rate(results: Digits) -> int:
    """The place of the rate with the largest mean EMM among the models that choose."""
    return int(emm(results)[:, : results.choosing].mean(1).argmax())


def at_equal_loss(results: Digits) -> Tensor:
    """Copied fraction at the peak minus at the largest rate's end, at the training loss of the latter, (S,)."""
    peak = tested(results)[peak_rate(results)]
    last = tested(results)[-1, :, -1]  # (S, 4)
    return (interpolated(peak[..., LOSS], peak[..., COPIED], last[:, LOSS]) - last[:, COPIED]).nan_to_num()


def beside_smallest(results: Digits) -> Tensor:
    """Copied fraction at the peak minus at the smallest rate's end, at the training loss of the latter, (S,)."""
    peak = tested(results)[peak_rate(results)]
    last = tested(results)[0, :, -1]  # (S, 4)
    return (interpolated(peak[..., LOSS], peak[..., COPIED], last[:, LOSS]) - last[:, COPIED]).nan_to_num()


def interpolated(loss: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """Values (S, T) along training, where the running minimum of the loss (S, T) first falls to `at` (S,), and NaN
    outside its range."""
    falling = loss.cummin(1).values
    found = []
    for one, own, wanted in zip(falling, values, at, strict=True):
        k = int((one > wanted).sum())
        if k in (0, len(one)):
            found.append(torch.full_like(wanted, torch.nan))
            continue
        part = (one[k - 1].log() - wanted.log()) / (one[k - 1].log() - one[k].log()).clamp_min(1e-9)
        found.append(own[k - 1] + part.clamp(0, 1) * (own[k] - own[k - 1]))
    return torch.stack(found)


def cost(results: Digits) -> Tensor:
    """Log of the squared Frechet distance at the largest rate's end over the early stop's, (S,)."""
    last, peak = tested(results)[-1, :, -1], tested(results)[peak_rate(results)]
    ratios = []
    for end, looks in zip(last, peak, strict=True):
        calm = (looks[:, COPIED] <= max(0.05, float(end[COPIED]))).nonzero()
        stop = looks[int(calm[-1]) if len(calm) else 0]
        ratios.append((end[FRECHET] / stop[FRECHET]).log())
    return torch.stack(ratios)


def tested(results: Digits) -> Tensor:
    """What the models that test looked like along training at a constant rate, (E, S, T, 4)."""
    return results.constant.values[:, results.choosing :]


def annealing(results: Digits) -> Tensor:
    """At the end: each rate annealed minus the smallest rate throughout, (E, S, 4)."""
    return results.annealed.values[:, :, -1] - tested(results)[:1, :, -1]


def ends(looks: Looks, choosing: int = 0) -> Tensor:
    """What was seen at the end of training, (E, S, 4), without the models that choose."""
    return looks.values[:, choosing:, -1]
