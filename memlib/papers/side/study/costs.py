"""What the study would cost, stage by stage, from its settings alone."""

import math
from functools import partial

import torch

from memlib import noise
from memlib.cost import TRAINING, Work, operations, weights
from memlib.papers.side.study.arms import ARMS, classifier
from memlib.papers.side.study.experiment import arms_of, recipe_of, weights_of
from memlib.papers.side.study.model import Network
from memlib.papers.side.study.settings import Settings

_BYTES = 4  # of a number on disk
_BATCH = 64  # images of a step of a classifier, `students.distil`
_COPIES = 5  # moments at which the weights of a model are kept; its checkpoint has them four times more


def work(settings: Settings) -> list[Work]:
    """The stages of the study that grow with its settings; not those of S8 and further trainings (`pairs`, `decisive`).

    Images are taken as coloured; a model of the reader's own is taken to be as large as the one trained here.
    """
    size = settings.size or 16
    shape = (3, size, size) if settings.network == "unet" else (settings.latent,)
    network = Network(settings.network, shape, settings.width, settings.widths, 0.5)
    steps = len(noise.karras(50, 0.02, 20.0, rho=5)) - 1
    own, sources = 1 if settings.model else settings.networks, 2 if settings.second else 1
    arms = [arms_of(number) for number in range(own)]
    weighted = [[len(weights_of(arm, settings)) for arm in one] for one in arms]
    pushed = [[sum(w > 0 for w in weights_of(arm, settings)) for arm in one] for one in arms]
    # Clusters and random labels of each size, and labels that no arm of the network has: an arm's student is found.
    missing = sum(arm not in one for one in arms[: settings.theories] for arm in ("OL-TD", "RL-TD (training)"))
    labellings = min(settings.theories, own) * 2 * len(settings.class_sizes) + missing
    trained = sum(len(one) for one in arms) + len({ARMS[arm].surrogate for arm in arms[0]}) + 2 * labellings
    plain = settings.n_random + (own - 1) * settings.n_samples + own * settings.n_synthetic
    guided = settings.n_samples * (sum(map(sum, weighted)) + labellings)
    steered = settings.n_samples * (sum(map(sum, pushed)) + labellings)

    call = operations(network.build, shape)
    recipe, like = recipe_of(settings, bool(settings.model), 0), torch.empty(0, *shape, device="meta")
    build = partial(classifier, recipe.clusters, True, 0.5, recipe.residual, like)
    classify, push = (operations(build, shape, gradient=back) for back in (False, True))
    sample = math.prod(shape) * _BYTES
    found = [
        Work(
            "training the models",
            0.0 if settings.model else own * settings.train_steps * settings.batch * TRAINING * call,
            0.0 if settings.model else own * (_COPIES + 4) * weights(network.build),
        ),
        Work("unguided samples", plain * steps * call, plain * sample),
        Work("classifiers", trained * settings.student_steps * _BATCH * TRAINING * classify),
        Work("guided samples", steps * (guided * call + steered * push), guided * sample),
    ]
    return [Work(one.stage, sources * one.operations, sources * one.disk) for one in found]
