"""Shapes in the core's signatures are executed: a call with another shape than the signature says fails the test."""

from jaxtyping import install_import_hook
from shape_checks import CHECKED

install_import_hook(list(CHECKED), "shape_checks.checked")
