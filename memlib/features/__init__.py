"""Frozen embedders, images (N, C, H, W) -> features (N, D), in which metrics look for neighbours and compare sets.

None normalises its rows unless it says so: `metrics.nearest` does. `principal` needs nothing but a reference set of
images, `copies` trains on one, and `sscd` reads published weights.
"""

from memlib.features.principal import Embed, centred, half_whitened, latents, pixels
from memlib.features.sscd import sscd

__all__ = ["Embed", "centred", "half_whitened", "latents", "pixels", "sscd"]
