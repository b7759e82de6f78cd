"""Other people's networks as denoisers, and ours as folders that others can load.

A discrete-time network (DDPM, DDIM, Stable-Diffusion-style schedules) is one more denoiser D(x, sigma), known at T
levels: `from_discrete` says which. `from_diffusers` reads such a network from a diffusers folder or the hub,
`to_diffusers` writes one.
"""

from memlib.adapters.checkpoints import from_diffusers
from memlib.adapters.discrete import Discrete, from_discrete
from memlib.adapters.export import to_diffusers

__all__ = ["Discrete", "from_diffusers", "from_discrete", "to_diffusers"]
