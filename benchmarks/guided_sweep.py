"""A sweep over guidance weights against the loop of guided-diffusion, which runs each weight by itself.

Both take the same 50 DDIM steps with the same U-Net and the same convolutional classifier from the same noise, at
weights 0 to 7. The peer is written here after the published sampler: one run a weight, network and classifier asked at
every step, whatever the weight. `agrees` holds where no pixel differs by more than 1e-4 of the largest. Prints one JSON
row a size: `python benchmarks/guided_sweep.py`.
"""

import json
from functools import partial

import torch
from interleaved import DEVICE, row
from torch import Tensor, nn

from memlib import nets, noise, sample
from memlib.papers.side import attack

PATH, PEER = "guided sampling, weight sweep", "a guided-diffusion style loop"
WEIGHTS = [float(w) for w in range(8)]
# Pixels a side, channels of the U-Net, and (starts, target, repeats) of each row.
SMALL, LARGE = (16, (16, 32), ((1, 3.0, 7), (8, 1.5, 5))), (32, (64, 128), ((1, 3.0, 3), (32, 3.0, 3)))


class Judge(nn.Module):
    """A small convolutional classifier of noisy images: (B, 3, H, W), sigma -> (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1), nn.SiLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Logits (B, 10)."""
        return self.layers(x / (1 + sigma**2) ** 0.5)


def one_by_one(denoiser: nn.Module, judge: nn.Module, start: Tensor, labels: Tensor, sigmas: Tensor) -> Tensor:
    """Samples (B, W, C, H, W), a run for each weight."""
    runs = []
    for weight in WEIGHTS:
        x = start
        for sigma, target in zip(sigmas.to(start), sigmas[1:].to(start), strict=False):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                log_p = judge(leaf, sigma).log_softmax(1).gather(1, labels[:, None]).sum()
                gradient = torch.autograd.grad(log_p, leaf)[0]
            with torch.no_grad():
                believed = denoiser(x, sigma) + weight * sigma**2 * gradient
                x = believed + target / sigma * (x - believed)
        runs.append(x)
    return torch.stack(runs, 1)


def bare(denoiser: nn.Module, judge: nn.Module, start: Tensor, labels: Tensor, sigmas: Tensor) -> None:
    """The calls of the two networks alone, on all samples at once, in the first step on the starts alone."""
    x, y = start.repeat_interleave(len(WEIGHTS), 0), labels.repeat_interleave(len(WEIGHTS) - 1)
    shared = start, labels
    for number, sigma in enumerate(sigmas.to(start)[:-1]):
        states, wanted = (x, y) if number else shared
        with torch.no_grad():
            denoiser(states, sigma)
        leaf = states[: len(wanted)].detach().requires_grad_()  # weight 0 asks for no gradient
        torch.autograd.grad(judge(leaf, sigma).log_softmax(1).gather(1, wanted[:, None]).sum(), leaf)


def close(theirs: Tensor, ours: Tensor) -> bool:
    """Equal, rounding apart."""
    return bool((theirs - ours).abs().max() < 1e-4 * theirs.abs().max())


def main() -> None:
    """Print one row a number of seeds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pixels, channels, rows = SMALL if DEVICE.type == "cpu" else LARGE
    sigmas = noise.karras(50, 0.02, 20.0, rho=5)
    denoiser = nets.Preconditioned(nets.UNet(pixels, 3, channels, layers=1, attention=0))
    denoiser = denoiser.to(DEVICE).eval().requires_grad_(False)
    judge = Judge().to(DEVICE).eval().requires_grad_(False)
    for seeds, target, repeats in rows:
        start = sample.start(sigmas, range(seeds), (3, pixels, pixels), device=DEVICE)
        labels = torch.arange(seeds, device=DEVICE) % 10
        theirs = partial(one_by_one, denoiser, judge, start, labels, sigmas)
        ours = partial(attack.sweep, denoiser, judge, start, labels, WEIGHTS, sigmas)
        size = f"{seeds} x {len(WEIGHTS)} weights, U-Net {channels[0]}-{channels[1]}, {pixels} px, 50 steps"
        alone = partial(bare, denoiser, judge, start, labels, sigmas)
        print(json.dumps(row(PATH, PEER, size, theirs, ours, close, target, repeats, limit=alone)), flush=True)


if __name__ == "__main__":
    main()
