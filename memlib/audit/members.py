"""Does the model treat its training images differently from held-out ones? Each image, and the set as a whole.

Statistic and level are chosen on one half of the images and reported on the other: the best of many on pure noise
looks like an attack. The p-values of each half use the choice and the held-out images that are not its own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memlib import membership, metrics
from memlib.audit import kept
from memlib.audit.sources import Model, weights_of
from memlib.denoiser import Denoiser
from memlib.likelihood import variational_bound
from memlib.metrics import Count
from memlib.stored import Rows, choose, deviation, joined

MOST = 1000  # images of a side
LEVEL = 0.1  # false-discovery rate of the single images
_LEVELS = (0.1, 0.2, 0.4, 0.8, 1.6)  # in standard deviations of the images
_STEPS = 10  # of the variational bound


@dataclass(frozen=True)
class Membership:
    """What a model says of N members and M others.

    Attributes:
        statistic: the one chosen, with its level, such as "loss at sigma 0.2".
        auc: its AUC on the other half, and its interval.
        tpr: members found at a false-positive rate of 1 % there, or of one image where there are fewer than 100.
        fpr: that rate.
        table: for each statistic at its chosen level, the AUC on the other half with its interval.
        rows: the members that were scored, (K,) positions in the training set.
        p: their p-values, (K,).
        found: which of them are called members at a false-discovery rate of `LEVEL`, (K,) bool.
        set_p: the p-value of "the model was not trained on this set".
    """

    statistic: str
    auc: tuple[float, tuple[float, float]]
    tpr: Count
    fpr: float
    table: dict[str, tuple[float, float, float]]
    rows: Tensor
    p: Tensor
    found: Tensor
    set_p: float


def infer(model: Model, train: Rows, rows: Tensor, held_out: Rows, seed: int, device: str) -> Membership | None:
    """Score members and others under the model; None for fewer than 10 on a side.

    Arguments:
        model: what is audited.
        train: (T, C, H, W), the training images.
        rows: (K,), one position for each distinct image.
        held_out: (M, C, H, W), distinct images that the model did not see.
        seed: of the halves and of all noise.
        device: of the model.
    """
    coin = torch.Generator().manual_seed(seed)
    rows = rows[torch.randperm(len(rows), generator=coin)[:MOST]].sort().values
    others = choose(held_out, torch.randperm(len(held_out), generator=coin)[:MOST])
    if min(len(rows), len(others)) < 10:
        return None
    images = joined(choose(train, rows), others)
    points = kept.points(model, images, device)
    columns = _columns(model, deviation(choose(points, slice(len(rows)))))

    def make(positions: Tensor) -> Tensor:
        x = points[positions].to(device)
        scored = [score(x, positions).float().cpu() for _, _, score in columns]
        return torch.stack(scored, 1).nan_to_num(neginf=-1e30, posinf=1e30)

    told = [(name, level) for name, level, _ in columns]
    scores = kept.rows("membership", make, len(images), kept.name_of(model), images, told, seed)
    return _judged(scores[: len(rows)].double(), scores[len(rows) :].double(), told, rows, coin)


def _columns(model: Model, spread: float) -> list:
    """(name, level, function of images and positions) for every statistic at every level."""
    denoiser, lowest = model.denoiser, model.lowest
    levels = sorted({model.level(factor * spread) for factor in _LEVELS})
    probe = kept.fresh
    columns = []
    for sigma in levels:
        columns += [
            ("loss", sigma, lambda x, at, s=sigma: membership.loss_statistic(denoiser, x, s, probe(at, 0), draws=2)),
            ("PIA", sigma, lambda x, at, s=sigma: membership.pia(denoiser, x, s, lowest)),
            ("SimA", sigma, lambda x, at, s=sigma: membership.sima(denoiser, x, s)),
            ("local dimension", sigma, lambda x, at, s=sigma: membership.local_dimension(denoiser, x, s, probe(at, 1))),
            ("curvature", sigma, lambda x, at, s=sigma: membership.curvature(denoiser, x, s, probe(at, 1))),
        ]
        if sigma > lowest:
            columns.append(
                ("SecMI", sigma, lambda x, at, s=sigma: membership.secmi(denoiser, x, s, 0.25, lowest=lowest))
            )
    grid = [model.level(float(sigma)) for sigma in torch.logspace(1, -1, _STEPS) * spread]
    grid = sorted(set(grid), reverse=True)
    columns.append(("likelihood", 0.0, lambda x, at: -variational_bound(denoiser, x, grid, probe(at, 2)).value))
    if weights_of(denoiser) is not None:
        middle = levels[len(levels) // 2]
        net = _AtLevel(denoiser, middle)
        columns.append(
            ("gradient norm", middle, lambda x, at: membership.gradient_norm(net, x, middle, probe(at, 3), chunk=8))
        )
    return columns


class _AtLevel(nn.Module):
    """A denoiser at one level: `gradient_norm` maps over levels, and adapters look their level up on the CPU."""

    def __init__(self, denoiser: Denoiser, sigma: float) -> None:
        super().__init__()
        self.net, self.denoiser, self.sigma = weights_of(denoiser), denoiser, sigma

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.denoiser(x, torch.tensor(self.sigma))


def _judged(members: Tensor, others: Tensor, told: list, rows: Tensor, coin: torch.Generator) -> Membership:
    """Choose on one half, report on the other, and give every member a p-value from the choice of the other half."""
    halves = [_halves(len(side), coin) for side in (members, others)]
    chosen = [_best(members[halves[0][half]], others[halves[1][half]], told) for half in (0, 1)]
    p = torch.empty(len(members), dtype=torch.float64)
    for half in (0, 1):
        column = chosen[1 - half][0]
        at, beside = halves[0][half], halves[1][half]
        p[at] = membership.conformal(members[at, column], others[beside, column])
    column, best = chosen[0]
    seen, unseen = members[halves[0][1]], others[halves[1][1]]
    fpr = max(0.01, 1 / len(unseen))
    name, level = told[column]
    table = {}
    for statistic, place in best.items():
        area, (low, high) = metrics.auc(seen[:, place], unseen[:, place])
        table[_titled(statistic, told[place][1])] = (area, low, high)
    return Membership(
        statistic=_titled(name, level),
        auc=metrics.auc(seen[:, column], unseen[:, column]),
        tpr=metrics.tpr_at_fpr(seen[:, column], unseen[:, column], fpr),
        fpr=fpr,
        table=table,
        rows=rows,
        p=p,
        found=membership.discoveries(p, LEVEL),
        set_p=membership.set_p_value(seen[:, column], unseen[:, column]),
    )


def _titled(statistic: str, sigma: float) -> str:
    return f"{statistic} at sigma {sigma:.3g}" if sigma else statistic


def _halves(n: int, coin: torch.Generator) -> tuple[Tensor, Tensor]:
    order = torch.randperm(n, generator=coin)
    return order[: n // 2], order[n // 2 :]


def _best(members: Tensor, others: Tensor, told: list) -> tuple[int, dict[str, int]]:
    """The column of the largest AUC, and that of each statistic."""
    areas = [metrics.auc(members[:, k], others[:, k])[0] for k in range(len(told))]
    best: dict[str, int] = {}
    for k, (name, _) in enumerate(told):
        if name not in best or areas[k] > areas[best[name]]:
            best[name] = k
    return max(range(len(told)), key=lambda k: areas[k]), best
