"""What executes the shapes in the core's signatures during the tests: beartype, with an int where a float is wanted."""

from beartype import BeartypeConf, beartype

CHECKED = (  # the modules whose signatures are executed
    "memlib.noise",
    "memlib.sample",
)

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
