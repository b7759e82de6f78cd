"""Frozen embedders, images (N, C, H, W) -> features (N, D), in which metrics look for neighbours and compare sets.

None normalises its rows unless it says so: `metrics.nearest` does. `principal` needs nothing but a reference set of
images, `copies` trains on one (`alterations` says what survives as a copy), `classifier` on a labelled one, and `sscd`
reads published weights.
"""

from memlib.features.alterations import UNSEEN, augment, planted
from memlib.features.classifier import Classifier, fit_classifier
from memlib.features.copies import copies, copy_loss, learn_copies, recall
from memlib.features.principal import Embed, centred, half_whitened, latents, pixels
from memlib.features.sscd import sscd

__all__ = [
    "UNSEEN",
    "Classifier",
    "Embed",
    "augment",
    "centred",
    "copies",
    "copy_loss",
    "fit_classifier",
    "half_whitened",
    "latents",
    "learn_copies",
    "pixels",
    "planted",
    "recall",
    "sscd",
]
