"""The import hook of `conftest.py` is active wherever its packages are installed, so CI executes the shapes."""

import pytest
import torch


def test_a_wrong_shape_in_a_signature_of_the_core_fails():
    jaxtyping = pytest.importorskip("jaxtyping", reason="shapes are executed only where jaxtyping is installed")
    pytest.importorskip("beartype", reason="shapes are executed only where beartype is installed")
    from memlib import losses

    with pytest.raises(jaxtyping.TypeCheckError):
        losses.denoising(torch.zeros(3, 2), torch.zeros(3, 4))
