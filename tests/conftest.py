"""Shapes in the core's signatures are executed: a call with another shape than the signature says fails the test.

Where jaxtyping or beartype is missing, the other tests run without; `test_shapes.py` says so in a skip.
"""

from importlib.util import find_spec

if find_spec("jaxtyping") and find_spec("beartype"):
    from jaxtyping import install_import_hook
    from shape_checks import CHECKED

    install_import_hook(list(CHECKED), "shape_checks.checked")
