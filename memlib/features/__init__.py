"""Frozen embedders, images (N, C, H, W) -> features (N, D), in which metrics look for neighbours and compare sets.

None normalises its rows: `metrics.nearest` does. `principal` needs nothing but a reference set of images,
`classifier` a labelled one.
"""

from memlib.features.classifier import Classifier, fit_classifier
from memlib.features.principal import Embed, centred, half_whitened, latents, pixels

__all__ = ["Classifier", "Embed", "centred", "fit_classifier", "half_whitened", "latents", "pixels"]
