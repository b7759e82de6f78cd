"""The device of these tests: `MEMLIB_DEVICE`, such as cuda, or else `pretend`, which every machine has."""

import contextlib
import os

import pytest
import torch

if os.environ.get("MEMLIB_DEVICE", "pretend") == "pretend":
    # Before the first gradient, at which torch counts its devices. It stays, so these tests are a session of their own.
    import pretend_device


@pytest.fixture(scope="package", autouse=True)
def device():
    """The device, in plain float32; `pretend` exists from the first of these tests on."""
    kind = os.environ.get("MEMLIB_DEVICE", "pretend")
    entered = contextlib.nullcontext()
    if kind == "pretend":
        entered = pretend_device.filled()
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    with entered:
        yield torch.device(kind)
    torch.backends.cudnn.allow_tf32 = before
