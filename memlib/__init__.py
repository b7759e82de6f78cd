"""memlib: what diffusion models remember.

One idea runs through every room: a denoiser is a callable `D(x, sigma) = E[x0 | x0 + sigma n = x]`, and the noise
level sigma is the only clock. Import rooms, not names: `from memlib import noise, sample, metrics`.
"""

__version__ = "0.1.0"
