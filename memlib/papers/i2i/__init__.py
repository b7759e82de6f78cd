"""Image-to-image models that complete what is hidden of an image, and how they are made to forget: Li et al. 2024.

One file a family, with one interface: `mae` (masked autoencoder), `vqgan` (VQ-GAN with a masked-token transformer; the
paper's own is `mage`) and `diffusion` (Palette-like inpainter) all `complete(images, mask)` and build the inputs of
their own encoder. `checkpoints` reads a trained one of any family. `methods` holds the paper's unlearning and its
baselines, `targets` the noise that forget images are sent to, `masks` the seven tasks. `bound` puts the theory into
numbers; `evaluation` measures completions, says in words what was lost, and finds out what a model still knows. `study`
is the experiment behind claims I1 to I10. Images are standardised throughout.
"""

from memlib.papers.i2i import bound, checkpoints, evaluation, masks, methods, targets
from memlib.papers.i2i.diffusion import Inpainter
from memlib.papers.i2i.mae import MAE
from memlib.papers.i2i.mage import MAGE
from memlib.papers.i2i.masked_code import MaskedCodeInpainter
from memlib.papers.i2i.methods import i2i, unlearn
from memlib.papers.i2i.vqgan import VQGAN

__all__ = [
    "MAE",
    "MAGE",
    "VQGAN",
    "Inpainter",
    "MaskedCodeInpainter",
    "bound",
    "checkpoints",
    "evaluation",
    "i2i",
    "masks",
    "methods",
    "targets",
    "unlearn",
]
