"""DDIM sampling against diffusers' scheduler in the loop of its pipeline, and against bare calls of the network.

Both walk the same 50 timesteps of the same U-Net from the same noise, without its images' conversion. Bare calls are
the network alone, 50 times on one input: what no loop can beat. The network is untrained and predicts x0, so that
samples stay as bright as images. `agrees` holds where no pixel of ours differs from theirs by more than 1e-4. Prints
one JSON row a peer and size: `python benchmarks/sampling.py`.
"""

import json
from functools import partial

import diffusers
import torch
from diffusers import DDIMScheduler, UNet2DModel
from interleaved import row, seconds
from torch import Tensor, nn

from memlib import sample
from memlib.adapters import from_discrete
from memlib.noise import discrete

PATH, STEPS = "DDIM sampling", 50
PEER = f"diffusers {diffusers.__version__} DDIM loop"


class Nothing(nn.Module):
    """A network that takes no time, so that what is left is the loop."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return x


@torch.no_grad()
def by_diffusers(net: nn.Module, scheduler: DDIMScheduler, start: Tensor) -> Tensor:
    """Samples (B, C, H, W) from standard noise: the loop of DDIMPipeline."""
    scheduler.set_timesteps(STEPS)
    x = start
    for t in scheduler.timesteps:
        x = scheduler.step(net(x, t).sample, t, x).prev_sample
    return x


@torch.no_grad()
def bare(net: nn.Module, scheduler: DDIMScheduler, start: Tensor) -> None:
    """The calls of the network alone, on (B, C, H, W)."""
    scheduler.set_timesteps(STEPS)
    for t in scheduler.timesteps:
        net(start, t)


def close(theirs: Tensor, ours: Tensor) -> bool:
    """Equal, rounding apart."""
    return bool((theirs - ours).abs().max() < 1e-4)


def main() -> None:
    """Print one row a peer and size."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    scheduler = DDIMScheduler(clip_sample=False, prediction_type="sample")
    sigmas = discrete(scheduler.alphas_cumprod, STEPS)
    for widths, pixels, batch, repeats in (((8, 16), 8, 1, 15), ((16, 32), 16, 8, 7), ((32, 64), 32, 8, 2)):
        net = UNet2DModel(
            sample_size=pixels,
            layers_per_block=1,
            block_out_channels=widths,
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
            norm_num_groups=8,
        ).eval()
        start = torch.randn(batch, 3, pixels, pixels)
        denoiser = from_discrete(net, scheduler.alphas_cumprod, "x0")
        ours = partial(sample.ancestral, denoiser, start * (1 + sigmas[0].item() ** 2) ** 0.5, sigmas)
        size = f"U-Net {widths[0]}-{widths[1]}, {pixels} px, B={batch}, {STEPS} steps"
        theirs, alone = partial(by_diffusers, net, scheduler, start), partial(bare, net, scheduler, start)
        target = 1.2 if batch == 1 else 0.98
        idle = partial(sample.ancestral, from_discrete(Nothing(), scheduler.alphas_cumprod, "x0"), start, sigmas)
        share = seconds(idle) / seconds(alone)
        why = f"a step costs {seconds(idle) / STEPS * 1e6:.0f} us beside the network, {share:.1%} of it"
        right = lambda _, found, theirs=theirs: close(theirs(), found)  # noqa: E731
        loops = row(PATH, PEER, size, theirs, ours, close, target, repeats, why)
        calls = row(PATH, "bare network calls", size, alone, ours, right, 0.98, repeats, why)
        print(json.dumps(loops), json.dumps(calls), sep="\n", flush=True)


if __name__ == "__main__":
    main()
