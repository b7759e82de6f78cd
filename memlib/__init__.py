"""memlib: what diffusion models remember.

One idea runs through the library: a denoiser is a callable `D(x, sigma) = E[x0 | x0 + sigma n = x]`, and the noise
level sigma is the only clock. `import memlib` is cheap, and `memlib.sample` loads that module when it is first used.
"""

import importlib

__version__ = "0.2.0"

__all__ = [
    "adapters",
    "analytic",
    "assets",
    "cache",
    "claim",
    "cost",
    "data",
    "denoiser",
    "errors",
    "features",
    "inpaint",
    "likelihood",
    "losses",
    "membership",
    "metrics",
    "nets",
    "noise",
    "random",
    "run",
    "sample",
    "settings",
    "shapes",
    "shards",
    "stored",
    "train",
]


def __getattr__(name: str) -> object:
    """A module of the core, imported at its first use."""
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
