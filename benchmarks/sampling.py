"""DDIM sampling against diffusers' scheduler in the loop of its pipeline, and against bare calls of the network.

Both walk the same 50 timesteps of the same U-Net from the same noise, without its images' conversion. Bare calls are
the network alone, 50 times on one input: what no loop can beat. The network is untrained and predicts x0, so that
samples stay as bright as images. `agrees` holds where no pixel of ours differs from theirs by more than 1e-4. Prints
one JSON row a peer and size: `python benchmarks/sampling.py`.
"""

import json
import shutil
from functools import partial

import diffusers
import torch
from diffusers import DDIMScheduler, UNet2DModel
from interleaved import DEVICE, clock, row, seconds
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from memlib import sample
from memlib.adapters import compiled, from_discrete
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


def apart(theirs: Tensor, ours: Tensor) -> float:
    """The mean distance of two samples' pixels, as a part of their mean size."""
    return float((theirs - ours).abs().mean() / theirs.abs().mean())


def alike(theirs: Tensor, ours: Tensor) -> bool:
    """Equal up to the rounding of TF32 or bfloat16, over the steps: 5 %."""
    return apart(theirs, ours) < 0.05


def largest(product: int = 8192) -> float:
    """Operations a second of the largest bfloat16 product at hand: what no network can beat."""
    a, b = (torch.randn(product, product, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    seconds(lambda: a @ b)
    return 2 * product**3 / (seconds(lambda: [a @ b for _ in range(10)], 5) / 10)


def ddpm_unet() -> nn.Module:
    """The U-Net of DDPM for CIFAR-10 (35.7 million parameters; Ho et al. 2020), untrained."""
    return UNet2DModel(
        sample_size=32,
        layers_per_block=2,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )


def small_unet() -> nn.Module:
    """A U-Net so small that launching its kernels takes longer than running them."""
    return UNet2DModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=8,
    )


def on_accelerator() -> None:
    """Print rows of eager and of compiled sampling, for a small and for a real network."""
    torch.manual_seed(0)
    scheduler = DDIMScheduler(clip_sample=False, prediction_type="sample")
    sigmas, peak = discrete(scheduler.alphas_cumprod, STEPS), largest()
    for name, build, pixels, batch in (("DDPM's U-Net", ddpm_unet, 32, 256), ("small U-Net 16-32", small_unet, 16, 8)):
        net = build().to(DEVICE).eval().requires_grad_(False)
        start = torch.randn(batch, 3, pixels, pixels, device=DEVICE)
        with FlopCounterMode(display=False) as counter:
            net(start, scheduler.timesteps[0])
        denoiser = from_discrete(net, scheduler.alphas_cumprod, "x0")
        fast = compiled(denoiser)
        x = start * (1 + sigmas[0].item() ** 2) ** 0.5
        theirs = partial(by_diffusers, net, scheduler, start)
        eager, ours = (partial(sample.ancestral, d, x, sigmas) for d in (denoiser, fast))
        ends = [run() for run in (theirs, eager, ours)]  # kernels are chosen and compiled
        off = [apart(ends[0], end) for end in ends[1:]]
        share = counter.get_total_flops() * STEPS / seconds(ours) / peak
        size = f"{name}, {pixels} px, B={batch}, {STEPS} steps"
        loop = row(PATH, PEER, size, theirs, eager, alike, 0.98, 3, f"the same kernels; {off[0]:.1e} apart")
        why = f"{share:.1%} of the largest bfloat16 product's {peak / 1e12:.0f} TFLOP/s; {off[1]:.1e} apart"
        quick = row(f"{PATH}, compiled in bfloat16", PEER, size, theirs, ours, alike, 2.5, 3, why)
        print(json.dumps(loop), json.dumps(quick), sep="\n", flush=True)


def main() -> None:
    """Print one row a peer and size."""
    if DEVICE.type != "cpu":
        return on_accelerator()
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
        loops = row(PATH, PEER, size, theirs, ours, close, target, repeats, why, alone)
        calls = row(PATH, "bare network calls", size, alone, ours, right, 0.98, repeats, why, alone)
        print(json.dumps(loops), json.dumps(calls), sep="\n", flush=True)
        if shutil.which("c++"):
            wanted = 1.7 if batch == 1 else 1.0
            print(json.dumps(compiled_row(denoiser, size, theirs, ours, wanted, repeats)), flush=True)


def compiled_row(denoiser: nn.Module, size: str, theirs: partial, eager: partial, target: float, repeats: int) -> dict:
    """The same samples by a compiled network: what compiling takes, and after how many batches it has paid."""
    fast = partial(sample.ancestral, compiled(denoiser), *eager.args[1:])
    began = clock()
    fast()
    took = clock() - began
    call, x, sigma = fast.args[0], fast.args[1], fast.args[2][0].to(fast.args[1])
    alone = lambda: [call(x, sigma) for _ in range(STEPS)]  # noqa: E731  # the limit: the compiled network alone
    found = row(f"{PATH}, compiled", PEER, size, theirs, fast, close, target, repeats, limit=alone)
    saved = seconds(eager, 3) - (quick := seconds(fast, 3))
    paid = f"has paid after {(took - quick) / saved:.0f} such batches" if saved > 0 else "never pays"
    return found | {"reason": f"compiling takes {took:.0f} s and {paid}"}


if __name__ == "__main__":
    main()
