"""What executes the shapes in the core's signatures during the tests: beartype, with an int where a float is wanted."""

from beartype import BeartypeConf, beartype

CHECKED = (  # the modules whose signatures are executed
    "memlib.analytic",
    "memlib.denoiser",
    "memlib.inpaint",
    "memlib.likelihood",
    "memlib.losses",
    "memlib.membership",
    "memlib.nets.blocks",
    "memlib.nets.classifiers",
    "memlib.nets.denoisers",
    "memlib.nets.stack",
    "memlib.noise",
    "memlib.random",
    "memlib.sample",
    "memlib.metrics.counts",
    "memlib.metrics.extent",
    "memlib.metrics.frechet",
    "memlib.metrics.mmd",
    "memlib.metrics.neighbours",
    "memlib.metrics.quality",
    "memlib.features.alterations",
)

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
