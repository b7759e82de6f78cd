"""Frozen embedders, images (N, C, H, W) -> features (N, D), in which metrics find neighbours and compare sets.

None of them normalises its rows unless it says so: `metrics.nearest` does. `principal` needs only a reference set of
images. `copies` is trained on one (`alterations` says what still counts as a copy), and `classifier` on a labelled set.
`sscd`, `inception`, `clip` and `dinov2` need weights, which are given by path.
"""

from memlib.features._classifier import ClassifierFeatures, HeldOut, classifier, held_out
from memlib.features._clip import clip
from memlib.features._copies import copies, copy_loss, learn_copies, recall
from memlib.features._dinov2 import dinov2
from memlib.features._inception import Inception, inception
from memlib.features._sscd import sscd
from memlib.features.alterations import UNSEEN, augment, planted
from memlib.features.principal import Embed, centred, half_whitened, latents, pixels

__all__ = [
    "UNSEEN",
    "ClassifierFeatures",
    "Embed",
    "HeldOut",
    "Inception",
    "augment",
    "centred",
    "classifier",
    "clip",
    "copies",
    "copy_loss",
    "dinov2",
    "half_whitened",
    "held_out",
    "inception",
    "latents",
    "learn_copies",
    "pixels",
    "planted",
    "recall",
    "sscd",
]
