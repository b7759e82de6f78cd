"""Shapes in signatures: `Float[Tensor, " b *s"]` is a floating tensor of shape (B, *S).

The letters name sizes: b samples in a batch, *s the shape of one sample, n any other count. A size that is named twice
in a signature must be the same twice, and the tests check this in every call. Users do not need jaxtyping, which does
the checking: without it the names are plain tensors.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch import Tensor

__all__ = ["Bool", "Float", "Int", "PerSample", "Shaped"]

if TYPE_CHECKING or find_spec("jaxtyping"):
    from jaxtyping import Bool, Float, Int, Shaped
else:

    class Shaped:
        """A tensor of any shape: jaxtyping, which would check it, is not installed."""

        def __class_getitem__(cls, item: Any) -> Any:
            return item[0]

    Bool = Float = Int = Shaped

PerSample = float | Shaped[Tensor, ""] | Shaped[Tensor, " #b"]
"""One number for the whole batch (a float, or a tensor () or (1,)), or one for each sample, (B,)."""
