"""The model under attack: trained here or wrapped, and its samples without guidance."""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from memlib import losses, nets, noise, sample, train
from memlib.adapters import Discrete
from memlib.cache import load, save
from memlib.cache._fingerprint import code_fingerprint
from memlib.cache.shards import Shards, stream
from memlib.denoiser import pair
from memlib.noise import noise_from
from memlib.papers.side.study.settings import Settings
from memlib.papers.side.study.world import World, coders
from memlib.random import choose
from memlib.run import Run

ROWS = 500  # unguided samples a batch
SYNTHETIC = 10**9  # seed of the first image that classifiers are distilled on, far from those that are scored


@dataclass(frozen=True)
class Network:
    """What a denoiser's network looks like: `shape` is S of its samples (B, *S), `spread` their standard deviation."""

    kind: str
    shape: tuple[int, ...]
    width: int
    widths: list[int]
    spread: float

    def build(self) -> nets.Preconditioned:
        """A denoiser with weights from torch's generator, in torch's default dtype."""
        if self.kind == "unet":
            net: nn.Module = nets.UNet(self.shape[-1], self.shape[0], tuple(self.widths))
        else:
            net = nets.ResidualMLP(self.shape, width=self.width, blocks=2)
        return nets.Preconditioned(net, self.spread)


@dataclass(frozen=True)
class Training:
    """How a denoiser is trained: optimiser steps, images a step, learning rate."""

    steps: int
    batch: int
    lr: float


@dataclass(frozen=True)
class Target:
    """A model that is attacked: denoiser, the noise levels (n + 1,) of its sampler, and an empty batch (0, *S) of its
    samples' shape, dtype and device."""

    denoiser: nn.Module
    sigmas: Tensor
    like: Tensor


def network_of(world: World, settings: Settings) -> Network:
    """The network that a model of the members' coordinates gets."""
    z = coders(world)[0](world.members)
    return Network(settings.network, tuple(z.shape[1:]), settings.width, settings.widths, float(z.std()))


def train_model(z: Tensor, network: Network, how: Training, seed: int, run: Run) -> list[dict[str, Tensor]]:
    """Train a denoiser on z (N, *S) by denoising score matching; the averaged weights after each fifth of the steps.

    Levels are drawn as ln sigma ~ N(-0.5, 1.2^2). A killed run goes on from its checkpoint. The weights at the first
    four moments are files of their own, written as training passes them, so a resumed run has them too.
    """
    torch.manual_seed(seed)  # the initial weights
    model = network.build().to(z)
    average, fifth = copy.deepcopy(model).requires_grad_(False), how.steps // 5
    folder = run.folder("model", code_fingerprint(__name__), z, network, how, seed)

    def loss(model: nn.Module, generator: torch.Generator) -> Tensor:
        assert isinstance(model, nets.Preconditioned)
        x0 = choose(z, how.batch, generator)
        sigma = noise.as_level(noise.lognormal(how.batch, -0.5, 1.2, generator), z)
        return losses.denoising(*pair(model, x0, sigma, noise_from(generator)), model.weight(sigma)).mean()

    # Checkpoints fall on other steps than the files: a kill between two writes at one step would lose the second.
    every = 499 if fifth % 499 else 503
    options = {"lr": how.lr, "ema": average, "decay": 0.99, "seed": seed, "checkpoint": folder, "every": every}
    kept = [_moment(folder, k * fifth) for k in range(1, 5)]
    for step in train.fit(model, loss, how.steps, **options):
        if (path := _moment(folder, step.index + 1)) in kept:
            save(path, dict(average.state_dict()))
    return [*(load(path) for path in kept), dict(average.state_dict())]


def _moment(folder: Path, step: int) -> Path:
    return folder / f"after-{step:08d}.safetensors"


def denoiser_with(state: dict[str, Tensor], network: Network, like: Tensor) -> nn.Module:
    """A frozen denoiser with these weights; `like` (0, *S) gives its dtype and device."""
    with torch.random.fork_rng():
        denoiser = network.build().to(like).eval().requires_grad_(False)
    denoiser.load_state_dict(state)
    return denoiser


def states_of(z: Tensor, network: Network, how: Training, seed: int, run: Run) -> list[dict[str, Tensor]]:
    """`train_model`, trained once and then read; z (N, *S)."""
    return run.cached("model", train_model, z, network, how, seed, run)


def trained(z: Tensor, network: Network, how: Training, seed: int, run: Run) -> Target:
    """The denoiser trained on z (N, *S) from this seed, with a grid of 50 levels."""
    state = states_of(z, network, how, seed, run)[-1]
    return Target(denoiser_with(state, network, z[:0]), noise.karras(50, 0.02, 20.0, rho=5), z[:0])


def target_of(world: World, foreign: Discrete | None, settings: Settings, run: Run) -> Target:
    """The model that is attacked: the foreign one with 50 of its own levels, or one trained on the members."""
    z = coders(world)[0](world.members)
    if foreign is not None:
        return Target(foreign.requires_grad_(False), foreign.grid(min(50, len(foreign.sigmas) - 1)), z[:0])
    return trained(z, network_of(world, settings), training_of(settings), run.seed, run)


def training_of(settings: Settings) -> Training:
    """How the settings train a model."""
    return Training(settings.train_steps, settings.batch, settings.lr)


def unguided(target: Target, seeds: Tensor) -> Tensor:
    """Samples (B, *S) of seeds (B,) by DDIM, without guidance: sample i has the same noise in every batch."""
    like = target.like
    x = sample.start(target.sigmas, seeds, like.shape[1:], dtype=like.dtype, device=like.device)
    return sample.ancestral(target.denoiser, x, target.sigmas)


def plain_samples(target: Target, n: int, first: int, run: Run) -> Shards:
    """n unguided samples of seeds from `first` on, on disk: a killed run goes on where it stopped."""
    folder = run.folder("plain", code_fingerprint(__name__), target, n, first)
    return stream(lambda seeds: unguided(target, seeds), n, folder, key=folder.name, batch=ROWS, first=first)


def synthetic_samples(target: Target, n: int, run: Run) -> Tensor:
    """n generated images (n, *S) to learn from, whose seeds are not among those that are scored."""
    return plain_samples(target, n, SYNTHETIC, run).load().to(target.like)
