"""Image-to-image models that complete what is hidden of an image, and how they are made to forget: Li et al. 2024.

A family a file, with one face: `mae` (masked autoencoder), `vqgan` (VQ-GAN with a masked-token transformer) and
`diffusion` (Palette-like inpainter) all `complete(images, mask)`, and build their own encoder's inputs. `methods` holds
the paper's unlearning and its baselines, `targets` the noise that forget images are sent to, `masks` the seven tasks;
`bound` puts its theory into numbers, `probes` asks what is still known, and `outcomes` says in words what was lost.
Images are standardised throughout.
"""

from memlib.completion import bound, masks, methods, outcomes, probes, quality, targets
from memlib.completion.diffusion import Inpainter
from memlib.completion.mae import MAE
from memlib.completion.methods import i2i, unlearn
from memlib.completion.vqgan import VQGAN

__all__ = [
    "MAE",
    "VQGAN",
    "Inpainter",
    "bound",
    "i2i",
    "masks",
    "methods",
    "outcomes",
    "probes",
    "quality",
    "targets",
    "unlearn",
]
