"""What the study would cost, stage by stage, from its settings alone."""

import math

from memlib import nets
from memlib.cost import TRAINING, Work, operations, weights
from memlib.papers.sgu.study.arms import tuned_arms_of
from memlib.papers.sgu.study.experiment import GROUPS
from memlib.papers.sgu.study.images import networks_of, tuned_processes
from memlib.papers.sgu.study.settings import Settings

_BYTES = 4  # of a number on disk


def work(settings: Settings) -> list[Work]:
    """The stages of the study but the toy, likelihoods and inpainting, whose images are few. Colour is assumed."""
    size = settings.size or 16
    deep = settings.network == "unet"
    shape = (3, size, size) if deep else (settings.latent,)

    def build() -> nets.Preconditioned:
        width = settings.width
        net = (
            nets.UNet(size, 3, (width, 2 * width, 2 * width))
            if deep
            else nets.ResidualMLP(shape, width=width, blocks=2)
        )
        return nets.Preconditioned(net, 0.5)

    # A step has as many images with forgotten ones among them as without.
    call, step = operations(build, shape), settings.batch * TRAINING
    groups = [name for name in GROUPS if name != "toy"]
    scratch = networks_of(settings, groups, range(settings.n_seeds))
    tuned = [arm for arm in tuned_arms_of(settings) for _ in range(len(tuned_processes(settings)) * settings.n_side)]
    tuning = len(tuned) * sum(settings.tune_steps)
    drawn = (len(scratch) + len(tuned) * len(settings.tune_steps)) * settings.n_samples
    sample = math.prod(shape) * _BYTES
    return [
        Work("training from scratch", len(scratch) * settings.train_steps * step * call, len(scratch) * weights(build)),
        Work("fine-tuning", tuning * step * call, len(tuned) * len(settings.tune_steps) * weights(build)),
        Work("samples", drawn * settings.n_levels * call, drawn * sample),
    ]
