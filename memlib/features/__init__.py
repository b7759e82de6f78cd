"""Frozen embedders, images (N, C, H, W) -> features (N, D), in which metrics look for neighbours and compare sets.

None normalises its rows: `metrics.nearest` does. `principal` needs nothing but a reference set of images.
"""

from memlib.features.principal import Embed, centred, half_whitened, latents, pixels

__all__ = ["Embed", "centred", "half_whitened", "latents", "pixels"]
