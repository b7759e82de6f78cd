"""Shapes in signatures: `Float[Tensor, "b *s"]` is a floating tensor (B, *S).

jaxtyping gives the names their meaning, and the tests check every call against them. The library runs without it: then
the names are plain tensors.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

__all__ = ["Bool", "Float", "Int", "Shaped"]

if TYPE_CHECKING or find_spec("jaxtyping"):
    from jaxtyping import Bool, Float, Int, Shaped
else:

    class Shaped:
        """A tensor of any shape: jaxtyping, which would check it, is not installed."""

        def __class_getitem__(cls, item: Any) -> Any:
            return item[0]

    Bool = Float = Int = Shaped
