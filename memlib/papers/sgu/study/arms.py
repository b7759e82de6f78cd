"""The image networks: three diffusion processes, the arms that are compared, and the training of one network."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from memlib import losses, nets, noise, train
from memlib.cache._fingerprint import code_fingerprint
from memlib.denoiser import pair
from memlib.papers.sgu._objective import Draw, ForgetLoss, objective, rows
from memlib.papers.sgu.study.settings import Settings
from memlib.run import Run

PROCESSES = ("VE", "VP", "DDPM")
_CHECKPOINT = 5000  # steps from which on a training keeps checkpoints


# A process is three things: the levels that training draws, the grid that sampling visits, the weight of the loss.


def level_draw(process: str) -> Draw:
    """The levels of training: (n, generator) -> (n,)."""
    if process == "VE":
        return lambda n, generator: noise.loguniform(n, 0.02, 20.0, generator)
    if process == "VP":
        return lambda n, generator: noise.uniform_time(n, generator=generator)
    return lambda n, generator: noise.uniform_step(n, _ddpm()[0], generator)


def grid(process: str, n: int) -> Tensor:
    """The levels of sampling, (n + 1,)."""
    return {"VE": lambda: noise.ve(n, 0.02, 20.0), "VP": lambda: noise.vp(n), "DDPM": lambda: noise.ddpm(n)}[process]()


def level_weight(process: str, sigma: Tensor) -> Tensor:
    """The weight of both terms of the loss, (B,) -> (B,): 1, or for DDPM that of eq. 12 divided by its mean."""
    if process != "DDPM":
        return torch.ones_like(sigma)
    steps, mean = _ddpm()
    return losses.ddpm_weight(sigma, steps) / mean


@cache
def _ddpm() -> tuple[Tensor, Tensor]:
    steps = noise.ddpm(1000)
    return steps, losses.ddpm_weight(steps[:-1], steps).mean()


# An arm is a loss on the forget data, and how that is weighted over the levels.


def bump(sigma: Tensor, sigma_star: float, size: int) -> Tensor:
    """exp(-(ln(sigma / sigma*) / 0.8)^2 / 2), (B,) -> (B,): large where the classes part. Found on the explore half."""
    return torch.exp(-0.5 * ((sigma / sigma_star).log() / 0.8) ** 2)


def bump_per_coordinate(sigma: Tensor, sigma_star: float, size: int) -> Tensor:
    """`bump` divided by the number of coordinates, (B,) -> (B,), since a squared inner product grows like size^2."""
    return bump(sigma, sigma_star, size) / size


def flat(sigma: Tensor, sigma_star: float, size: int) -> Tensor:
    """1 at every level, (B,) -> (B,): eq. 10 with lambda = sigma^2."""
    return torch.ones_like(sigma)


def inverse_square(sigma: Tensor, sigma_star: float, size: int) -> Tensor:
    """1 / sigma^2, (B,) -> (B,): eq. 9 with lambda = sigma^2 on VE. On VP the equation has 1 more."""
    return sigma**-2


class Arm(NamedTuple):
    """The loss on the forget data (None: none) and its weight (sigma, sigma*, coordinates) -> (B,)."""

    forget_loss: ForgetLoss | None = None
    weight: Callable[[Tensor, float, int], Tensor] = flat


ARMS = {
    "standard": Arm(),  # trained on everything
    "unseen": Arm(),  # retrained without the forget data
    "orthogonal": Arm(losses.orthogonal, bump_per_coordinate),
    "obtuse": Arm(losses.obtuse, bump),
    "orthogonal, printed": Arm(losses.orthogonal, inverse_square),  # eq. 9
    "obtuse, printed": Arm(losses.obtuse, flat),  # eq. 10
    "elementwise": Arm(losses.orthogonal_elementwise, flat),  # the released code
    "released sign": Arm(losses.alignment, flat),  # the released code
    "ascent": Arm(losses.ascent, bump),  # an older method, weighted alike
    "rest": Arm(),  # only for fine-tuning: on the retained data alone
}
PRINTED = ("orthogonal, printed", "obtuse, printed")  # what the claims are about
SHAPED = ("orthogonal", "obtuse")  # the same losses, weighted where the classes part
RELEASED = ("elementwise", "released sign")
OTHERS = (*SHAPED, *RELEASED, "ascent")
FRONTIER = {  # further alphas of the frontier, beside the one that is compared
    "orthogonal": (0.7, 0.95),
    "obtuse": (0.7, 0.95),
    "orthogonal, printed": (0.9, 0.99),
    "obtuse, printed": (0.8, 0.97),
}
_ALPHA = {  # of the arms that have no setting, chosen on the explore half
    "orthogonal, printed": 0.999,
    "obtuse, printed": 0.9,
    "elementwise": 0.95,
    "released sign": 0.95,
    "ascent": 0.9,
}


def printed(process: str, sigma: Tensor) -> Tensor:
    """1 / sigma_t^2 of eq. 9 with lambda = sigma_t^2, or 1 on DDPM (eq. 13), (B,) -> (B,).

    sigma_t is the noise in the coordinates of the process: sigma / sqrt(1 + sigma^2) on VP.
    """
    return {"VE": sigma**-2, "VP": 1 + sigma**-2, "DDPM": torch.ones_like(sigma)}[process]


def arms_of(settings: Settings) -> tuple[str, ...]:
    """The arms that are trained from scratch."""
    return ("standard", "unseen", *PRINTED, *(OTHERS if settings.all_losses else ()))


def tuned_arms_of(settings: Settings) -> tuple[str, ...]:
    """The arms of fine-tuning."""
    return ("rest", *PRINTED, "ascent") if settings.neighbours else ("rest", *PRINTED)


def alpha_of(arm: str, process: str, settings: Settings) -> float:
    """The weight alpha of the retained data in eq. 11, by arm and process."""
    chosen = {"orthogonal": settings.alpha_orthogonal, "obtuse": settings.alpha_obtuse}
    if arm in chosen:
        return chosen[arm][PROCESSES.index(process)]
    return _ALPHA.get(arm, 1.0)


@dataclass(frozen=True)
class Plan:
    """All that the training of one network depends on, apart from the images and the weights that it starts from."""

    process: str
    arm: str
    seed: int
    alpha: float
    steps: int
    lr: float
    batch: int
    network: str
    width: int


def plan(arm: str, process: str, seed: int, settings: Settings, steps: int = 0, alpha: float | None = None) -> Plan:
    """The training of one network from scratch, or its fine-tuning for `steps`; alpha is the usual one unless given."""
    return Plan(
        process=process,
        arm=arm,
        seed=seed,
        alpha=alpha_of(arm, process, settings) if alpha is None else alpha,
        steps=steps or settings.train_steps,
        lr=settings.tune_lr if steps else settings.lr,
        batch=settings.batch,
        network=settings.network,
        width=settings.width,
    )


def network(z: Tensor, plan: Plan) -> nn.Module:
    """An untrained denoiser of coordinates z (N, *S), in their dtype and on their device."""
    shape, width = tuple(z.shape[1:]), plan.width
    if plan.network == "unet":
        net: nn.Module = nets.UNet(shape[-1], shape[0], (width, 2 * width, 2 * width))
    else:
        net = nets.ResidualMLP(shape, width=width, blocks=2)
    return nets.Preconditioned(net, float(z.std())).to(z)


def loaded(z: Tensor, plan: Plan, weights: dict[str, Tensor]) -> nn.Module:
    """The denoiser of coordinates z (N, *S) with these weights, frozen and in evaluation mode."""
    with torch.random.fork_rng():
        net = network(z, plan)
    net.load_state_dict(weights)
    return net.eval().requires_grad_(False)


def trained(
    run: Run, plan: Plan, z: Tensor, forget: Tensor, sigma_star: float, origin: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Train one network and return its running average.

    Arguments:
        z: coordinates of the training images (N, *S).
        forget: whether each is to be forgotten (N,).
        sigma_star: the level about which the weight of the forget loss is centred.
        origin: weights to start from; None draws them from the plan's seed.
    """
    torch.manual_seed(plan.seed)
    net = network(z, plan)
    if origin:
        net.load_state_dict(origin)
    average = copy.deepcopy(net)
    arm, size = ARMS[plan.arm], z[0].numel()

    def weight(sigma: Tensor) -> Tensor:
        return level_weight(plan.process, sigma)

    def forget_weight(sigma: Tensor) -> Tensor:
        own = printed(plan.process, sigma) if plan.arm == PRINTED[0] else arm.weight(sigma, sigma_star, size)
        return weight(sigma) * own

    loss = objective(
        rows(z if plan.arm == "standard" else z[~forget]),
        rows(z[forget]) if arm.forget_loss else None,
        arm.forget_loss,
        level_draw(plan.process),
        alpha=plan.alpha,
        batch=plan.batch,
        weight=weight,
        forget_weight=forget_weight,
    )
    key = ("network", code_fingerprint(__name__), plan, z, forget, sigma_star, origin)
    folder = run.folder(*key) if plan.steps >= _CHECKPOINT else None
    title = f"{plan.process} {plan.arm} {plan.seed}"
    for _ in train.fit(
        net, loss, plan.steps, lr=plan.lr, ema=average, decay=0.99, seed=plan.seed, checkpoint=folder, title=title
    ):
        pass
    return dict(average.state_dict())


def runaway(plan: Plan, forget_loss: ForgetLoss, z: Tensor, forget: Tensor, origin: dict[str, Tensor]) -> Tensor:
    """How long the predicted noise grows on forget images while a standard network is fine-tuned at a small alpha.

    Arguments:
        z: coordinates of the training images (N, *S).
        forget: whether each is to be forgotten (N,).
        origin: the weights of the standard network.

    Returns:
        |eps_hat| / |eps| at sigma = 0.5, mean over a hundred forget images, every ten steps, (steps / 10,).
    """
    net = network(z, plan)
    net.load_state_dict(origin)
    sides = rows(z[~forget]), rows(z[forget])
    loss = objective(*sides, forget_loss, level_draw(plan.process), alpha=plan.alpha, batch=plan.batch)
    shown, lengths = z[forget][:100], []
    for step in train.fit(net, loss, plan.steps, lr=plan.lr, schedule="constant", seed=plan.seed, title="runaway"):
        if step.index % 10 == 0:
            with torch.no_grad():
                hat, true = pair(net, shown, 0.5, noise.seeded(range(len(shown))))
            lengths.append(hat.flatten(1).norm(dim=1).mean() / true.flatten(1).norm(dim=1).mean())
    return torch.stack(lengths).cpu()
