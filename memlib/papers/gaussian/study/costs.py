"""What the study would cost, stage by stage, from its settings alone."""

from functools import partial

from memlib.cost import TRAINING, Work, operations, weights
from memlib.noise import karras
from memlib.papers.gaussian.study.settings import Settings
from memlib.papers.gaussian.study.unlearning import ARMS, UNLEARNED
from memlib.papers.gaussian.toys import toy_network

_LEVELS, _ENCODING = 30, 39  # noise levels of the sampler, and of the way up to the latents
_POINT = 2 * 4  # bytes of a sample that is kept


def work(settings: Settings) -> list[Work]:
    """The stages that use networks (G5, latents) but likelihoods, whose solver takes as many calls as it needs.

    All else is closed forms on the CPU: seconds, whatever the settings.
    """
    build = partial(toy_network, settings.width)
    call, seeds = operations(build, (2,)), settings.n_seeds
    points = settings.batch * sum(2 if arm in UNLEARNED else 1 for arm in ARMS)  # of a step of all arms
    drawn, calls = len(ARMS) * seeds * settings.n_samples, 2 * (len(karras(_LEVELS)) - 1) - 1
    encoded = settings.n_labelled * 2 * (_ENCODING - 1)
    kept = len(ARMS) * seeds * weights(build) * (2 if settings.dtype == "float64" else 1)
    return [
        Work("training", seeds * settings.train_steps * points * TRAINING * call, kept),
        Work("samples", (drawn * calls + encoded) * call, drawn * _POINT),
    ]
