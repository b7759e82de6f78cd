"""Frozen embedders, images (N, C, H, W) -> features (N, D), in which metrics look for neighbours and compare sets.

None normalises its rows: `metrics.nearest` does. `principal` needs nothing but a reference set of images, `classifier`
labels too; `inception` and `clip` need weights that are given by path.
"""

from memlib.features.classifier import Classifier, HeldOut, classifier, held_out
from memlib.features.clip import clip
from memlib.features.inception import Inception, inception
from memlib.features.principal import Embed, centred, half_whitened, latents, pixels

__all__ = [
    "Classifier",
    "Embed",
    "HeldOut",
    "Inception",
    "centred",
    "classifier",
    "clip",
    "half_whitened",
    "held_out",
    "inception",
    "latents",
    "pixels",
]
