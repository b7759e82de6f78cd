"""Other people's networks as denoisers, and ours as folders that others can load.

A discrete-time network (DDPM, DDIM, schedules in the style of Stable Diffusion) is a denoiser D(x, sigma) at T levels:
`from_discrete` makes it one. `from_diffusers` reads such a network from a diffusers folder or the hub, and
`to_diffusers` writes one. `from_flow` takes a network trained by flow matching. `from_edm` reads a folder with one in
the preconditioning of EDM, and `from_preconditioned` takes it from memory. A network of latents needs the autoencoder
that `from_vae` reads. `compiled` makes a denoiser fast for sampling.
"""

from memlib.adapters.checkpoints import from_diffusers
from memlib.adapters.compile import compiled
from memlib.adapters.discrete import Discrete, from_discrete
from memlib.adapters.edm import Edm, from_edm, from_preconditioned, is_edm
from memlib.adapters.export import to_diffusers
from memlib.adapters.flow import Flow, from_flow
from memlib.adapters.latent import Autoencoder, from_vae

__all__ = [
    "Autoencoder",
    "Discrete",
    "Edm",
    "Flow",
    "compiled",
    "from_diffusers",
    "from_discrete",
    "from_edm",
    "from_flow",
    "from_preconditioned",
    "from_vae",
    "is_edm",
    "to_diffusers",
]
